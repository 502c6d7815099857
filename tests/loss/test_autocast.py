"""`linear_grpo_loss` under autocast casts what `F.linear` casts, and nothing else."""

import pytest
import torch

from elastic import ops
from tests.loss.heads import random_head, run
from tests.loss.test_linear_loss_autograd import call

pytestmark = pytest.mark.usefixtures("kernels")


def test_autocast_casts_as_linear_does():
    head = random_head(torch.bfloat16)
    expected = run(ops.linear_grpo_loss, head)
    leaves = random_head(torch.bfloat16).leaves()
    wide = [x.detach().float().requires_grad_() for x in leaves.tensors()]
    leaves.hidden, leaves.weight = wide
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(leaves, chunk_tokens=4096).loss
    loss.backward()
    assert torch.equal(loss, expected[0].loss)
    for leaf, gradient in zip(wide, expected[1], strict=True):
        assert leaf.grad.dtype == torch.float32
        assert torch.equal(leaf.grad, gradient.float())


@pytest.mark.cpu_kernels  # float64
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_float64_alone_as_linear_does(dtype):
    head = random_head(torch.float64, bias=True)
    expected = run(ops.linear_grpo_loss, head)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.nn.functional.linear(head.hidden, head.weight, head.bias).dtype == torch.float64
        got = run(ops.linear_grpo_loss, head)
    assert got[0].logprobs.dtype == torch.float64
    for one, other in zip((*got[0], *got[1]), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.cpu_kernels  # float64
@pytest.mark.parametrize("wide", ["hidden", "weight", "bias"])
def test_autocast_casts_each_operand_by_itself_so_mixed_float64_is_refused_as_by_linear(wide):
    head = random_head(torch.float32, bias=True)
    setattr(head, wide, getattr(head, wide).double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="dtype"):
            torch.nn.functional.linear(head.hidden, head.weight, head.bias)
        with pytest.raises(TypeError, match=r"^linear_grpo_loss: (weight|bias): expected .* float64"):
            call(head)


def test_autocast_does_not_turn_integers_into_floats():
    head = random_head()
    head.hidden = head.hidden.long()
    expected = pytest.raises(TypeError, match="hidden: expected float32")
    with torch.autocast("cpu", dtype=torch.bfloat16), expected:
        call(head)


def test_autocast_that_is_switched_off_again_or_of_another_device_casts_nothing():
    head = random_head()
    expected = run(ops.linear_grpo_loss, head)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        results = [run(ops.linear_grpo_loss, head)]
    torch.set_autocast_enabled("cuda", True)
    try:
        results.append(run(ops.linear_grpo_loss, head))
    finally:
        torch.set_autocast_enabled("cuda", False)
    for output, gradients in results:
        assert torch.equal(output.loss, expected[0].loss)
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
