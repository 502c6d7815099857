"""`force_logits_`: rows that must be forced become certain. B rows, V vocabulary.

Least traffic: the logits written once.
"""

import torch
from torch import Tensor

from bench.harness.case import Case, Variant, ceiling, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import model_of
from bench.ops.budget_step import END, EOS, MARKERS, PAD
from elastic import Budget, ops
from elastic.budget.machine import compile_budgets


def case(device: Device, rows: int, vocab: int, dtype: torch.dtype) -> Case:
    """Every row is forced: all of the logits are written."""
    machine, index = compile_budgets([Budget(0, 8)], MARKERS, None, [EOS], PAD)
    machine = machine.to(device.torch)
    state = ops.new_state(index.expand(rows), machine)
    filled = torch.randn(rows, vocab, dtype=dtype, device=device.torch)
    logits = [filled.clone(), filled.clone()]
    ids = torch.full((rows, 1), END, device=device.torch)

    def refill(number: int) -> None:
        logits[number % 2].copy_(filled)
        device.flush_cache()

    def eager(number: int) -> Tensor:
        return logits[number % 2].fill_(-torch.inf).scatter_(1, ids, 0.0)

    def fused(number: int) -> Tensor:
        ops.force_logits_(logits[number % 2], state, machine)
        return logits[number % 2]

    def check(result: Tensor) -> None:
        assert result[:, END].eq(0).all(), "the forced token is not certain"
        assert result.isneginf().sum() == rows * (vocab - 1), "another token is possible"

    variants = [
        Variant("eager", lambda: eager, check, refill),
        Variant("elastic", lambda: fused, check, refill),
        ceiling(device, filled),
    ]
    shape, model = f"B={rows} V={vocab}", model_of(vocab)
    return Case("force_logits_", shape, name_of(dtype), variants, bytes=nbytes(filled), model=model)
