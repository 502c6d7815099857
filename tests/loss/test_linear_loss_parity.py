"""`linear_grpo_loss` against the fused heads of Liger 0.8.5 and torch, where the formulas coincide."""

import pytest
import torch
from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOFunction
from torch.nn.functional import linear_cross_entropy

from elastic import ops
from tests.loss.batches import assert_gradient_near, fitting
from tests.loss.heads import random_head
from tests.loss.test_liger_parity import LENGTHS, LONGEST, padded


def padded_hidden(hidden: torch.Tensor, batch) -> torch.Tensor:
    """[N, H] packed to [R, T, H] padded."""
    return torch.stack([padded(batch, column) for column in hidden.unbind(1)], -1)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.2])
def test_liger(loss, kl_coef):
    head = random_head(torch.float64, lengths=LENGTHS, groups=(2, 2), seed=3)
    batch, ours, theirs = head.batch, head.leaves(), head.leaves()
    advantages = torch.tensor([1.0, -0.5, 0.7, -1.3]).double()
    batch.mask[:] = True
    value, *_ = LigerFusedLinearGRPOFunction.apply(
        padded_hidden(theirs.hidden, batch),
        theirs.weight,
        padded(batch, batch.targets),
        padded(batch, batch.mask.double()),
        advantages,
        None,
        padded(batch, batch.ref_logprobs),
        padded(batch, batch.old_logprobs),
        None,
        None,
        None,
        kl_coef,
        0.2,
        0.2,
        "grpo" if loss == "gspo" else loss,
        LONGEST,
        "sequence" if loss == "gspo" else "token",
        1.0,
        1.05,
        1.0,
        False,  # compiled
    )
    value.backward()
    output = ops.linear_grpo_loss(
        ours.hidden,
        ours.weight,
        *batch.positional(batch.logits)[1:],
        advantages,
        ref_logprobs=batch.ref_logprobs,
        kl_coef=kl_coef,
        **fitting(LONGEST, loss=loss),
        chunk_tokens=4,
    )
    output.loss.backward()
    # Liger computes logprobs in float32
    assert output.loss.item() == pytest.approx(value.item(), abs=1e-5)
    assert_gradient_near(ours.hidden.grad, theirs.hidden.grad, 1e-5)
    assert_gradient_near(ours.weight.grad, theirs.weight.grad, 1e-5)


def test_cross_entropy_is_the_loss_on_policy():
    """Old logprobs equal to the current ones and an advantage of 1: the gradient of the mean likelihood."""
    head = random_head(torch.float64, bias=True)
    batch, ours, theirs = head.batch, head.leaves(), head.leaves()
    batch.old_logprobs = ops.token_logprobs(batch.logits, batch.targets)[0]
    output = ops.linear_grpo_loss(
        ours.hidden,
        ours.weight,
        *batch.positional(batch.logits)[1:],
        torch.ones(5).double(),
        bias=ours.bias,
        loss="dapo",
        chunk_tokens=4,
    )
    output.loss.backward()
    linear_cross_entropy(theirs.hidden, theirs.weight, batch.targets, linear_bias=theirs.bias).backward()
    for mine, other in zip(ours.tensors(), theirs.tensors(), strict=True):
        assert_gradient_near(mine.grad, other.grad, 1e-12)
