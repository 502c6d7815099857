"""Hand-written values of logprobs, entropy and loss among the ids of a kept set (docs/kept-set.md).

Logits ln(1, 2, 3, 4): among the ids 1 and 2 the probabilities are 0.4 and 0.6, among all four 0.1 to 0.4.
"""

import math

import pytest
import torch

from tests.loss.batches import loss_and_gradient
from tests.loss.kept import kept_of

LOGITS = [math.log(p) for p in (1, 2, 3, 4)]


def logits_of(ops, tokens):
    return torch.tensor([LOGITS] * tokens, dtype=ops.dtype)


def test_a_logprob_is_that_among_the_kept_ids(ops):
    kept = kept_of([[1, 2], [], [2]])
    logprobs, entropy = ops.token_logprobs(logits_of(ops, 3), torch.tensor([2, 2, 2]), **kept)
    assert logprobs.tolist() == pytest.approx([math.log(0.6), math.log(0.3), 0.0], abs=ops.error)
    # -0.4 ln 0.4 - 0.6 ln 0.6, and -sum p ln p of 0.1, 0.2, 0.3, 0.4
    assert entropy.tolist() == pytest.approx([0.6730116670092565, 1.2798542258336676, 0.0], abs=ops.error)


def test_the_temperature_comes_before_the_set_is_renormalised(ops):
    # halved temperature squares the weights: 4 and 9 of 13
    logprobs, _ = ops.token_logprobs(logits_of(ops, 1), torch.tensor([2]), 0.5, **kept_of([[1, 2]]))
    assert logprobs.item() == pytest.approx(math.log(9 / 13), abs=ops.error)


def test_ids_outside_of_the_set_have_no_gradient(ops):
    leaf = logits_of(ops, 2).requires_grad_()
    logprobs, _ = ops.token_logprobs(leaf, torch.tensor([2, 2]), **kept_of([[1, 2], []]))
    (gradient,) = torch.autograd.grad(logprobs.sum(), leaf)
    assert gradient[0].tolist() == pytest.approx([0.0, -0.4, 0.4, 0.0], abs=ops.error)
    assert gradient[1].tolist() == pytest.approx([-0.1, -0.2, 0.7, -0.4], abs=ops.error)


def test_a_ratio_of_sampling_logprobs_is_one_with_the_set_and_the_kept_mass_without(ops):
    old = torch.tensor([math.log(0.6)], dtype=ops.dtype)
    arguments = (torch.tensor([2]), old, torch.tensor([0, 1]), torch.ones(1, dtype=ops.dtype))
    with_set, gradient = loss_and_gradient(ops.grpo_loss, logits_of(ops, 1), *arguments, **kept_of([[1, 2]]))
    assert with_set.loss.item() == pytest.approx(-1.0, abs=ops.error)  # -ratio A
    assert gradient[0].tolist() == pytest.approx([0.0, 0.4, -0.4, 0.0], abs=ops.error)
    without = ops.grpo_loss(logits_of(ops, 1), *arguments)
    assert without.loss.item() == pytest.approx(-0.5, abs=ops.error)  # the set has mass 0.5


def test_masked_tokens_need_no_target_in_their_set(ops):
    kept = kept_of([[1, 2], [0, 1]])
    zeros = torch.zeros(2, dtype=ops.dtype)
    output, gradient = loss_and_gradient(
        *(ops.grpo_loss, logits_of(ops, 2), torch.tensor([2, 3]), zeros, torch.tensor([0, 2])),
        torch.ones(1, dtype=ops.dtype),
        mask=torch.tensor([True, False]),
        **kept,
    )
    assert output.logprobs.tolist() == pytest.approx([math.log(0.6), 0.0], abs=ops.error)
    assert gradient[1].tolist() == [0.0] * 4
