"""A GRPO training of a command: its configuration, and a run that reports how it goes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from elastic.data import load
from elastic.models.quiet import quiet_transformers
from elastic.rewards import RewardFunction
from elastic.train import TrainConfig, Trainer
from elastic.train.run.progress import Progress

Tables = Mapping[str, Mapping[str, Any]]


class Rollouts(Protocol):
    """The settings that all trainings of a command share; see `DemoConfig`."""

    @property
    def prompts_per_step(self) -> int: ...
    @property
    def samples_per_prompt(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def kl_coef(self) -> float: ...
    @property
    def save_every(self) -> int: ...


def training_config(
    shared: Rollouts,
    *,
    model: str,
    device: str,
    seed: int,
    steps: int,
    run_dir: Path,
    method: str,
    tables: Tables,
) -> TrainConfig:
    """GRPO on the embedded task, with reward 1 for a right answer unless `tables` say otherwise.

    Args:
        shared: what all trainings of the command have in common.
        model: `tiny`, or the directory of the model to start from.
        device: as in ``[model]``.
        seed: of the problems, and of everything the training draws.
        steps: rollout batches. No problem comes twice.
        run_dir: of checkpoints, metrics and the trained model.
        method: preset of the configuration, see `elastic.train.config.methods`.
        tables: keys of this training alone, by table; they go before the shared ones.
    """
    common: dict[str, dict[str, Any]] = {
        "model": {"path": model, "device": device},
        "data": {"source": "tiny", "count": steps * shared.prompts_per_step, "seed": seed},
        "reward": {"name": "tiny"},
        "rollout": {
            "prompts_per_step": shared.prompts_per_step,
            "samples_per_prompt": shared.samples_per_prompt,
            "temperature": shared.temperature,
            "max_rows": shared.max_rows,
        },
        "optim": {"lr": shared.learning_rate},
        "loss": {"kl_coef": shared.kl_coef},
        "train": {
            "output_dir": str(run_dir),
            "steps": steps,
            "seed": seed,
            "save_every": shared.save_every,
        },
        # Several trainings run at the same time: the command prints their progress and names the training.
        "logging": {"console_every": 0, "progress": False, "tensorboard": False},
    }
    merged = {name: common.get(name, {}) | dict(tables.get(name, {})) for name in {**common, **tables}}
    return TrainConfig.from_table({"method": method, **merged})


def train(config: TrainConfig, model: Any, tokenizer: Any, reward: RewardFunction, name: str) -> None:
    """Runs a training, or what is left of it, in place, with about eight lines on stderr.

    Args:
        config: of the training.
        model: starting model, or one of its shape where the run is finished: its weights are then loaded.
        tokenizer: its tokenizer.
        reward: (graded response, answer) -> float.
        name: what the lines begin with.
    """
    data, steps = config.data, config.train.steps
    dataset = load(data.source, count=data.count, seed=data.seed)
    every = max(1, steps // 8)

    def report(progress: Progress, metrics: dict[str, float]) -> None:
        if progress.step % every == 0 or progress.step == steps:
            print(
                f"{name}: step {progress.step}/{steps}, {metrics['accuracy']:.1%} of the rollouts right",
                file=sys.stderr,
                flush=True,
            )

    with quiet_transformers():
        Trainer(config, model, tokenizer, dataset, reward, callbacks=[report]).train()
