"""What the value tables hold for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import elastic.ops
import elastic.reference
from tests.cuda_on_cpu.redirect import running


@dataclass(frozen=True)
class Implementation:
    """The loss functions, the widest dtype of logits they take, and how far off a number near 1 may be."""

    group_advantage: Callable[..., Any]
    token_logprobs: Callable[..., Any]
    grpo_loss: Callable[..., Any]
    dtype: torch.dtype
    error: float


@pytest.fixture(params=["reference", "cpu", "cuda_on_cpu"])
def ops(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    """The reference, and the ops on CPU kernels and on CUDA kernels (tests/cuda_on_cpu)."""
    module = elastic.reference if request.param == "reference" else elastic.ops
    wide = request.param != "cuda_on_cpu"
    with running("cuda_on_cpu" if request.param == "cuda_on_cpu" else "cpu", request):
        yield Implementation(
            module.group_advantage,
            module.token_logprobs,
            module.grpo_loss,
            torch.float64 if wide else torch.float32,
            1e-12 if wide else 3e-6,
        )
