"""Whether captured and compiled decode steps give what uncaptured ones give.

All greedy tokens on the embedded model in float32. An attention that takes no float32 is looked at on the
timed model: captured steps launch the same kernels and give the same tokens; compiled ones round to bfloat16
in other places, which changes some greedy tokens of a random model.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

import elastic
from bench.ops.engines import CAPTURED, COMPILED, UNCAPTURED, EngineOf
from elastic import Budget, Sampling

if TYPE_CHECKING:
    from bench.ops.decode import Job

GREEDY = Sampling(temperature=0.0)
ROWS = 16
THINKING, SOLUTION = 12, 4
SHARE = 0.5  # of the second greedy tokens, the first after a decode step, must be the same
NEAR = 0.1  # and so near in their logprobs, which are rounded to about 0.02


def hold(job: Job, attention: str, mode: str) -> None:
    """Compares once per process.

    Raises:
        AssertionError: they do not.
    """
    if not on_the_embedded_model(job.device.torch, attention, mode, job.make):
        on_the_timed_model(job, attention, mode)


@functools.cache
def embedded(device: torch.device) -> Any:
    model, _ = elastic.load_model("tiny", dtype=torch.float32, device=device)
    return model


@functools.cache  # compiling takes long
def on_the_embedded_model(device: torch.device, attention: str, mode: str, make: EngineOf) -> bool:
    """Whether it could be compared there."""
    model = embedded(device)
    vocab = model.config.vocab_size
    prompts = [[(3 * row + i * i) % vocab for i in range(5 + row % 4)] for row in range(ROWS)]
    try:
        engines = [make(model, ROWS, attention, way) for way in (UNCAPTURED, mode)]
    except ValueError:
        return False
    tokens = [greedy(engine, prompts).tokens for engine in engines]
    assert torch.equal(*tokens), f"{attention}, {mode}: other tokens than uncaptured on the embedded model"
    return True


def greedy(engine: Any, prompts: list[list[int]], thinking: int = THINKING) -> Any:
    budget = Budget(thinking, SOLUTION)
    return engine.generate(prompts, budget, sampling=GREEDY, phase="thinking")


def on_the_timed_model(job: Job, attention: str, mode: str) -> None:
    job.set_eos(job.never)
    if mode == CAPTURED:
        prompts = [job.prompt(9 + row % 5, row) for row in range(job.rows)]
        first, other = (greedy(job.engine(attention, way), prompts) for way in (UNCAPTURED, mode))
        assert torch.equal(first.tokens, other.tokens), f"{attention}, {mode}: other tokens than uncaptured"
    if mode == COMPILED:  # with as many columns as it is timed with, or it would be compiled again
        prompts = [job.prompt(job.columns * 35 // 64, row) for row in range(job.rows)]
        thinking = job.columns - len(prompts[0]) - SOLUTION - 1
        first, other = (greedy(job.engine(attention, way), prompts, thinking) for way in (CAPTURED, mode))
        near = (first.full_logprobs - other.full_logprobs)[:, 1].abs() < NEAR
        share = (near & first.tokens[:, 1].eq(other.tokens[:, 1])).double().mean().item()
        assert share >= SHARE, f"{attention}, {mode}: {share:.0%} of the second tokens are those of captured"
