"""One whole training of the embedded model, and what came of it.

Same data, reward, loss (DAPO's, without a KL), AdamW, number of rollouts and cap of t + s tokens for all.
They differ in who trains, who makes the rollouts, and whether these have two budgets or the one cap.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from bench.harness.memory import peak_bytes
from elastic import Budget, RolloutEngine, Sampling
from elastic.models import tiny

THINKING, SOLUTION = 40, 24
CAP = THINKING + SOLUTION
FORCED = 2  # tokens that the end of a thought may take beyond what is sampled
TEST_SEED = 11


@dataclass(frozen=True)
class Size:
    """Of a training: steps, prompts and samples of a step, problems that are trained on and tested."""

    steps: int = 20
    prompts: int = 8
    samples: int = 8
    problems: int = 1024
    tested: int = 256
    lr: float = 2e-4


Marks = list[tuple[float, float, float]]  # reward, wall and CPU clock at the end of each step


def elastic_run(size: Size, seed: int, output: Path, budget: dict[str, Any]) -> tuple[Any, Callable, Marks]:
    from elastic.train import TrainConfig, Trainer

    config = TrainConfig.from_table(
        {
            "model": {"path": "tiny", "device": "cpu"},
            "data": {"source": "tiny", "count": size.problems},
            "reward": {"name": "tiny"},
            "budget": budget,
            "rollout": {
                "prompts_per_step": size.prompts,
                "samples_per_prompt": size.samples,
                "temperature": 1.0,
                "max_rows": size.prompts * size.samples,
            },
            "optim": {"lr": size.lr},
            "train": {"output_dir": str(output), "steps": size.steps, "save_every": 0, "seed": seed},
            "logging": {"console_every": 0, "tensorboard": False, "progress": False},
        }
    )
    marks: Marks = []
    model, tokenizer = tiny.load()
    trainer = Trainer(
        *(config, model, tokenizer, tiny.problems(size.problems), tiny.reward),
        callbacks=[lambda _, record: marks.append((record["reward"], *clocks()))],
    )
    return model, trainer.train, marks


def trl_run(size: Size, seed: int, output: Path, rollout: Any) -> tuple[Any, Callable, Marks]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Clock(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "reward" in logs:
                marks.append((logs["reward"], *clocks()))

    model, tokenizer = tiny.load()
    marks: Marks = []

    def reward(completion_ids: list[list[int]], answer: list[str], **_: Any) -> list[float]:
        texts = [tokenizer.decode(ids) for ids in completion_ids]
        return [tiny.reward(text, right) for text, right in zip(texts, answer, strict=True)]

    problems = tiny.problems(size.problems)
    columns = {"prompt": [p.prompt for p in problems], "answer": [p.answer for p in problems]}
    trainer = GRPOTrainer(
        model=model,
        args=GRPOConfig(
            output_dir=str(output),
            max_steps=size.steps,
            per_device_train_batch_size=size.prompts * size.samples,
            num_generations=size.samples,
            max_completion_length=CAP + (FORCED if rollout else 0),
            learning_rate=size.lr,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            loss_type="dapo",
            temperature=1.0,
            seed=seed,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            disable_tqdm=True,
        ),
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=Dataset.from_dict(columns),
        callbacks=[Clock()],
        **({"rollout_func": rollout} if rollout else {}),
    )
    return trainer.accelerator.unwrap_model(trainer.model), trainer.train, marks


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _budgets() -> Any:
    from elastic.integrations.trl import elastic_rollout_func

    return elastic_rollout_func(Budget(THINKING, SOLUTION))


TWO, ONE = {"thinking": THINKING, "solution": SOLUTION}, {"thinking": "unlimited", "total": CAP}
WAYS: dict[str, Callable[[Size, int, Path], tuple[Any, Callable, Marks]]] = {
    "elastic": lambda size, seed, out: elastic_run(size, seed, out, TWO),
    "TRL, elastic rollouts": lambda size, seed, out: trl_run(size, seed, out, _budgets()),
    "elastic, one cap": lambda size, seed, out: elastic_run(size, seed, out, ONE),
    "TRL, one cap": lambda size, seed, out: trl_run(size, seed, out, None),
}
BASELINE = {"elastic": "TRL, elastic rollouts", "elastic, one cap": "TRL, one cap"}


def measure(way: str, seed: int, size: Size) -> dict[str, Any]:
    """Trains, in this process, which is measured as a whole.

    Returns:
        Rewards of each step; seconds of the clock and of the processor of each step but the first; bytes that
        became resident at most beyond what was there before the training; the trained model's accuracy on
        problems it has not seen, under the two budgets and under the one cap.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, train, marks = WAYS[way](size, seed, Path(folder))
        peak = peak_bytes(train)
        steps = [(wall - wall0, cpu - cpu0) for (_, wall0, cpu0), (_, wall, cpu) in pairwise(marks)]
        return {
            "rewards": [reward for reward, *_ in marks],
            "wall_s": [wall for wall, _ in steps],
            "cpu_s": [cpu for _, cpu in steps],
            "peak_bytes": peak,
            "accuracy_budgets": accuracy(model, Budget(THINKING, SOLUTION), size.tested),
            "accuracy_cap": accuracy(model, Budget(None, None, total=CAP), size.tested),
        }


def accuracy(model: Any, budget: Budget, tested: int) -> float:
    """The share of test problems that are right, one sample each at temperature 1, the same draws for all."""
    _, tokenizer = tiny.load()
    problems = tiny.problems(tested, split="test")
    engine = RolloutEngine(model.eval(), tokenizer, max_rows=64)
    with torch.no_grad():
        batch = engine.generate(
            [p.prompt for p in problems], budget, sampling=Sampling(1.0, seed=TEST_SEED), progress=False
        )
    texts = [tokenizer.decode(batch.tokens[row, : batch.lengths[row]]) for row in range(len(batch))]
    return sum(tiny.reward(text, p.answer) for text, p in zip(texts, problems, strict=True)) / tested
