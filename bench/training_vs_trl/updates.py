"""One update on the same rollouts: forward, loss, backward, clipped gradient, SGD's step.

A random model with a large vocabulary, rows of very different lengths. SGD, because Adam turns a gradient
that is 0 but for its rounding into a full step: the weights after the step show whether the updates are one.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench.harness import random_models
from bench.harness.memory import peak_bytes
from elastic.models.tiny.vocabulary import build_tokenizer

LR, NORM = 0.05, 1.0


@dataclass(frozen=True)
class Size:
    """Of the rollouts: the model's size in `random_models`, groups, and tokens of prompts and completions.

    Attributes:
        lengths: of the completions of each group.
        calls: that are timed, behind the one whose memory and weights are looked at.
    """

    model: str = "head"
    groups: int = 2
    prompt: int = 64
    lengths: tuple[int, ...] = (16, 48, 96, 256)
    calls: int = 1


@dataclass
class Rollouts:
    """Attributes:
    prompts: K lists of ids. completions, old: R tensors [n], ids and logprobs. advantages: [R].
    """

    prompts: list[list[int]]
    completions: list[Tensor]
    old: list[Tensor]
    advantages: Tensor

    @classmethod
    def random(cls, size: Size, vocab: int) -> "Rollouts":
        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(vocab, (size.groups, size.prompt), generator=draw)
        lengths = [length for _ in range(size.groups) for length in size.lengths]
        completions = [torch.randint(vocab, (length,), generator=draw) for length in lengths]
        # About what a model with small random weights gives any token, so that some ratios are clipped.
        level = -torch.tensor(float(vocab)).log()
        old = [level + 0.1 * torch.randn(length, generator=draw) for length in lengths]
        return cls(ids.tolist(), completions, old, torch.randn(len(lengths), generator=draw))

    @property
    def tokens(self) -> int:
        return sum(map(len, self.completions))


def elastic_update(model: Any, rollouts: Rollouts, output: Path) -> Callable[[], None]:
    from elastic.train import TrainConfig
    from elastic.train.collect.experience import Experience
    from elastic.train.run.accelerator import build_accelerator
    from elastic.train.update.policy import Policy
    from elastic.train.update.stats import UpdateStats

    tables = {
        "model": {"path": "tiny", "device": "cpu"},
        "data": {"source": "tiny", "count": 16},
        "reward": {"name": "tiny"},
        "train": {"output_dir": str(output)},
    }
    config = TrainConfig.from_table(tables)
    group = len(rollouts.completions) // len(rollouts.prompts)
    experience = Experience(
        prompts=rollouts.prompts,
        prompt_of=[row // group for row in range(len(rollouts.completions))],
        completions=rollouts.completions,
        mask=[torch.ones_like(ids, dtype=torch.bool) for ids in rollouts.completions],
        rollout_logprobs=rollouts.old,
        advantages=rollouts.advantages,
        old_logprobs=rollouts.old,
    )
    accelerator = build_accelerator(config)
    policy = Policy(model, accelerator, config.loss, temperature=1.0, max_length=None)

    def backward() -> None:
        policy.backward(experience, experience.loss_tokens, experience.loss_rows, UpdateStats())

    return stepping(model, backward)


def trl_update(model: Any, rollouts: Rollouts, output: Path, trainer_class: Any) -> Callable[[], None]:
    from datasets import Dataset
    from trl import GRPOConfig

    rows = len(rollouts.completions)
    group = rows // len(rollouts.prompts)
    trainer = trainer_class(
        model=model,
        args=GRPOConfig(
            output_dir=str(output),
            per_device_train_batch_size=rows,
            num_generations=group,
            loss_type="dapo",
            temperature=1.0,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
        ),
        processing_class=build_tokenizer(),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["<bos>"] * rows}),
    )
    prompts = torch.tensor(rollouts.prompts).repeat_interleave(group, 0)
    mask = pad_sequence([torch.ones_like(ids) for ids in rollouts.completions], batch_first=True)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": pad_sequence(rollouts.completions, batch_first=True),
        "completion_mask": mask,
        "advantages": rollouts.advantages,
        "old_per_token_logps": pad_sequence(rollouts.old, batch_first=True),
        "num_items_in_batch": mask.sum(),
    }
    trainer.current_gradient_accumulation_steps = 1
    inner = trainer.accelerator.unwrap_model(trainer.model).train()
    return stepping(inner, lambda: trainer.compute_loss(trainer.model, inputs).backward())


def stepping(model: Any, backward: Callable[[], None]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def update() -> None:
        optimizer.zero_grad()
        backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()

    return update


def _trl(model: Any, rollouts: Rollouts, output: Path) -> Callable[[], None]:
    from trl import GRPOTrainer

    return trl_update(model, rollouts, output, GRPOTrainer)


def _trl_fused(model: Any, rollouts: Rollouts, output: Path) -> Callable[[], None]:
    from elastic.integrations.trl import ElasticGRPOTrainer

    return trl_update(model, rollouts, output, ElasticGRPOTrainer)


WAYS: dict[str, Callable[[Any, Rollouts, Path], Callable[[], None]]] = {
    "elastic": elastic_update,
    "TRL, ElasticGRPOTrainer": _trl_fused,
    "TRL": _trl,
}


def measure(way: str, size: Size, weights: Path) -> dict[str, Any]:
    """Updates, in this process.

    Returns:
        Bytes that became resident at most during the first update beyond what was there before; seconds of
        the clock and of the processor of the later ones. The weights after the first go to `weights`.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = random_models.build(size.model)
        rollouts = Rollouts.random(size, model.config.vocab_size)
        update = WAYS[way](model, rollouts, Path(folder))
        peak = peak_bytes(update)
        torch.save([p.detach() for p in model.parameters()], weights)
        wall_s, cpu_s = [], []
        for _ in range(size.calls):
            wall, cpu = time.perf_counter(), time.process_time()
            update()
            wall_s.append(time.perf_counter() - wall)
            cpu_s.append(time.process_time() - cpu)
    return {"peak_bytes": peak, "wall_s": wall_s, "cpu_s": cpu_s, "tokens": rollouts.tokens}


def differences(before: list[Tensor], first: list[Tensor], second: list[Tensor]) -> tuple[float, float]:
    """The largest difference of two updated models, and the largest step that the first took."""
    apart = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
    return apart, max(float((a - b).abs().max()) for a, b in zip(first, before, strict=True))
