"""Rows further apart than 2^31 elements, and more rows or ids than are supported.

The logits lie in an anonymous mapping of which only the touched pages exist: gigabytes of addresses, a few
pages of memory.
"""

import mmap

import pytest
import torch

from elastic import ops
from tests.loss.batches import assert_gradient_near, assert_near, computed, random_batch

STRIDE = 2**31 // 4 + 7  # elements between rows: the fifth row lies beyond 2^31
TOKENS, VOCAB = 6, 301
FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


def untouched(elements: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(mmap.mmap(-1, elements * dtype.itemsize, flags=FLAGS), dtype=dtype)


def far_apart(logits: torch.Tensor) -> torch.Tensor:
    memory = untouched(STRIDE * (TOKENS - 1) + VOCAB, logits.dtype)
    rows = memory.as_strided(logits.shape, (STRIDE, 1))
    rows.copy_(logits)
    return rows


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
def test_offsets_beyond_32_bits(loss, inplace, entropy_coef):
    batch = random_batch(torch.bfloat16, lengths=(2, 4), groups=(2,), vocab=VOCAB)
    options = {**batch.keywords(), "loss": loss, "entropy_coef": entropy_coef}
    batch.rewards = options["rewards"] = torch.tensor([1.0, 0.0])
    near = batch.logits.clone().requires_grad_()
    expected = ops.grpo_loss(*batch.positional(near), **options)
    (expected_gradient,) = torch.autograd.grad(expected.loss, near)
    leaf = far_apart(batch.logits).requires_grad_()
    output = ops.grpo_loss(*batch.positional(computed(leaf)), **options, inplace=inplace)
    gradient = output.loss.grad_fn.saved_tensors[0]  # backward() to the leaf would touch the whole mapping
    assert gradient.stride(0) == (STRIDE if inplace else VOCAB)
    assert torch.equal(gradient, expected_gradient)
    assert torch.equal(output.logprobs, expected.logprobs)


def test_logprobs_beyond_32_bits():
    batch = random_batch(torch.bfloat16, lengths=(2, 4), groups=(2,), vocab=VOCAB)
    got = ops.token_logprobs(far_apart(batch.logits), batch.targets)
    expected = ops.token_logprobs(batch.logits, batch.targets)
    assert_near(got[0], expected[0], 0, "logprobs")
    assert_near(got[1], expected[1], 0, "entropy")


def test_the_gradient_of_far_rows_reaches_them():
    batch = random_batch(torch.bfloat16, lengths=(2, 4), groups=(2,), vocab=VOCAB)
    rows = far_apart(batch.logits)
    gradient = torch.ones(TOKENS)
    _, entropy, maximum, log_sum = torch.ops.elastic.token_logprobs(rows, batch.targets, 1.0)
    saved = (batch.targets, maximum, log_sum, entropy, gradient, None, 1.0)
    far = torch.ops.elastic.token_logprobs_backward(rows, *saved)
    near = torch.ops.elastic.token_logprobs_backward(batch.logits, *saved)
    assert_gradient_near(far, near, 0)


MOST = 2**31 - 1


def test_more_ids_than_supported_are_named():
    logits = untouched(MOST + 1, torch.bfloat16)[None]
    with pytest.raises(
        ValueError, match=rf"logits: expected at most {MOST} rows and ids, got \[1, {MOST + 1}\]"
    ):
        ops.token_logprobs(logits, torch.zeros(1, dtype=torch.int64))


def test_more_tokens_than_supported_are_named():
    logits = torch.zeros(1, 3).expand(MOST + 1, 3)
    with pytest.raises(
        ValueError, match=rf"logits: expected at most {MOST} rows and ids, got \[{MOST + 1}, 3\]"
    ):
        ops.token_logprobs(logits, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"hidden: expected at most {MOST} tokens and ids"):
        ops.linear_grpo_loss(
            logits,
            torch.zeros(5, 3),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1),
            torch.tensor([0, 1]),
            torch.ones(1),
        )
