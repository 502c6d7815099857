"""Rows of logits that are forced, wherever they begin in memory: every element of theirs, and no other."""

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets

pytestmark = pytest.mark.usefixtures("kernels")

ROWS = 4


# 6: less than 16 bytes of 2-byte elements. 40: a few 16-byte words. 8,200: one block's share of 2-byte
# elements and one word of the next.
@pytest.mark.parametrize("vocab", [6, 40, 8200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("first", [0, 1, 5])  # where rows begin; an odd stride moves them on
def test_forced_rows_are_certain_and_the_others_untouched(vocab, dtype, first):
    for token in (0, 1, vocab - 2, vocab - 1):
        # The end marker is forced at once in rows 0 and 2; rows 1 and 3 are free.
        budgets = [Budget(0, 5), Budget(3, 5)]
        machine, index = compile_budgets(budgets, Markers((2,), (token,)), None, [3], 3)
        state = ops.new_state(index.repeat(ROWS // 2), machine)
        buffer = torch.randn(ROWS, vocab + 9, generator=torch.Generator().manual_seed(0)).to(dtype)
        expected = buffer.clone()
        expected[::2, first : first + vocab] = -torch.inf
        expected[::2, first + token] = 0
        ops.force_logits_(buffer[:, first : first + vocab], state, machine)
        assert torch.equal(buffer, expected)
