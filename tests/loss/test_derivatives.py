"""Which derivatives the ops have, how often, under what: kept graphs, hooks, checkpoints, views, torch.func.

What they do not have raises: no derivative is ever silently 0, old or somebody else's.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from elastic import ops, reference
from tests.loss.batches import assert_gradient_near, random_batch
from tests.loss.heads import random_head

pytestmark = pytest.mark.usefixtures("kernels")

HEAD = random_head(vocab=37)
BATCH = HEAD.batch


def logprobs(module: Any, x: Tensor) -> Tensor:
    values, entropy = module.token_logprobs(x * 1, BATCH.targets)
    return values.mean() - 0.5 * entropy.mean()


def plain(module: Any, x: Tensor) -> Tensor:
    return module.grpo_loss(*batch_of(x).positional(x * 1), **batch_of(x).keywords()).loss


def in_place(module: Any, x: Tensor) -> Tensor:
    return module.grpo_loss(*batch_of(x).positional(x * 1), **batch_of(x).keywords(), inplace=True).loss


def linear(module: Any, x: Tensor) -> Tensor:
    batch = batch_of(x)
    rest = batch.positional(batch.logits)[1:]
    return module.linear_grpo_loss(HEAD.hidden.to(x), x * 1, *rest, **batch.keywords()).loss


def batch_of(x: Tensor) -> Any:
    return BATCH.double() if x.dtype == torch.float64 else BATCH


# name in errors, function, what it is differentiated by
OPS = [
    pytest.param("token_logprobs", logprobs, BATCH.logits, id="token_logprobs"),
    pytest.param("grpo_loss", plain, BATCH.logits, id="grpo_loss"),
    pytest.param("grpo_loss", in_place, BATCH.logits, id="in place"),
    pytest.param("linear_grpo_loss", linear, HEAD.weight, id="linear_grpo_loss"),
]
each_op = pytest.mark.parametrize(("name", "function", "values"), OPS)


def exact(function: Callable, values: Tensor) -> Tensor:
    """The gradient by the reference in float64."""
    leaf = values.double().requires_grad_()
    return torch.autograd.grad(function(reference, leaf), leaf)[0]


@each_op
def test_any_number_of_backwards_over_a_kept_graph_is_right(name, function, values):
    expected, leaf = exact(function, values), values.clone().requires_grad_()
    loss = function(ops, leaf)
    factors, gradients = (1.0, 1.0, 3.0, -0.5, 1.0, 2.0), []
    for number, factor in enumerate(factors):
        kept = number < len(factors) - 1
        gradients += torch.autograd.grad(loss * factor, leaf, retain_graph=kept)
    for factor, gradient in zip(factors, gradients, strict=True):  # what was handed out is never written
        assert_gradient_near(gradient, expected * factor, 1e-5)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaf)


@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_share_memory_only_where_the_graph_is_freed(inplace):
    logits = BATCH.logits.clone().requires_grad_() * 1
    loss = ops.grpo_loss(*BATCH.positional(logits), **BATCH.keywords(), inplace=inplace).loss
    handed_out = [torch.autograd.grad(loss, logits, retain_graph=kept)[0] for kept in (True, True, False)]
    assert len({gradient.data_ptr() for gradient in handed_out}) == 3
    assert [gradient.data_ptr() == logits.data_ptr() for gradient in handed_out] == [False, False, inplace]


@each_op
def test_a_torch_that_cannot_tell_counts_every_graph_as_kept(monkeypatch, name, function, values):
    monkeypatch.setattr("elastic.ops._autograd._keeps_graph", lambda: True)
    leaf = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(2 * function(ops, leaf), leaf)
    assert_gradient_near(gradient, 2 * exact(function, values), 1e-5)


def identity_hooks() -> Any:
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)


@each_op
@pytest.mark.parametrize("hooks", [identity_hooks, torch.autograd.graph.save_on_cpu])
@pytest.mark.parametrize("backwards", [1, 2, 3])
def test_hooks_on_saved_tensors_change_nothing(name, function, values, hooks, backwards):
    expected, leaf = exact(function, values), values.clone().requires_grad_()
    with hooks():
        loss = function(ops, leaf)
    for number in range(backwards):
        (loss * 2).backward(retain_graph=number < backwards - 1)
    assert_gradient_near(leaf.grad, 2 * backwards * expected, 1e-5)


@each_op
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backwards", [1, 3])
def test_checkpoints_change_nothing(name, function, values, reentrant, backwards):
    expected, leaf = exact(function, values), values.clone().requires_grad_()
    loss = checkpoint(lambda x: function(ops, x), leaf, use_reentrant=reentrant)
    for number in range(backwards):
        (loss * 2).backward(retain_graph=number < backwards - 1)
    assert_gradient_near(leaf.grad, 2 * backwards * expected, 1e-5)


@each_op
def test_a_second_derivative_raises_however_it_is_taken(name, function, values):
    leaf = values.clone().requires_grad_()
    loss = function(ops, leaf)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    assert_gradient_near(gradient.detach(), exact(function, values), 1e-5)
    message = f"^{name}: second derivatives: expected none, got a gradient to differentiate$"
    penalty = loss + gradient.square().sum() + leaf.sum()  # other ways lead to the leaf
    for differentiate in (
        lambda: gradient.sum().backward(retain_graph=True),
        lambda: penalty.backward(retain_graph=True),
        lambda: torch.autograd.grad(penalty, leaf, retain_graph=True, allow_unused=True),
        lambda: torch.autograd.functional.hessian(lambda x: function(ops, x), values),
    ):
        with pytest.raises(RuntimeError, match=message):
            differentiate()


@each_op
@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode_raises(name, function, values, requires_grad):
    message = f"^{name}: forward-mode derivatives: expected none, got a tensor with a tangent$"
    leaf = values.clone().requires_grad_(requires_grad)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=message):
        function(ops, forward_ad.make_dual(leaf, torch.ones_like(leaf)))


def test_forward_mode_raises_for_every_differentiable_argument():
    head = random_head(bias=True)
    rest = head.batch.positional(head.batch.logits)[1:]
    for index in range(3):
        with forward_ad.dual_level():
            tensors = [head.hidden, head.weight, head.bias]
            tensors[index] = forward_ad.make_dual(tensors[index], torch.ones_like(tensors[index]))
            with pytest.raises(RuntimeError, match="linear_grpo_loss: forward-mode derivatives"):
                ops.linear_grpo_loss(*tensors[:2], *rest, **head.batch.keywords(), bias=tensors[2])


def test_tangents_of_data_are_left_aside_as_their_gradients_are():
    with forward_ad.dual_level():
        old = forward_ad.make_dual(BATCH.old_logprobs, torch.ones_like(BATCH.old_logprobs))
        output = ops.grpo_loss(BATCH.logits, BATCH.targets, old, BATCH.row_offsets, **BATCH.keywords())
        assert forward_ad.unpack_dual(output.loss).tangent is None


@each_op
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.func.grad(f)(x),
        lambda f, x: torch.func.vjp(f, x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.jacrev(f)(x),
        lambda f, x: torch.func.hessian(f)(x),
        lambda f, x: torch.vmap(torch.func.grad(f))(x[None]),
        lambda f, x: torch.func.grad(lambda y: torch.vmap(f)(y).sum())(x[None]),
    ],
    ids=["grad", "vjp", "jvp", "jacrev", "hessian", "vmap of grad", "grad of vmap"],
)
def test_derivatives_of_torch_func_raise(name, function, values, transform):
    message = f"^{name}: torch.func: expected a call outside its transforms, got one inside$"
    with pytest.raises(RuntimeError, match=message):
        transform(lambda x: function(ops, x), values)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_token_logprobs_under_vmap_is_right_and_so_is_its_gradient():
    leaf = torch.stack([BATCH.logits, BATCH.logits.flip(0)]).requires_grad_()
    torch.vmap(lambda x: logprobs(ops, x))(leaf).sum().backward()
    for one, gradient in zip(leaf.detach(), leaf.grad, strict=True):
        assert_gradient_near(gradient, exact(logprobs, one), 1e-5)


@pytest.mark.parametrize("function", [plain, in_place, linear])
def test_the_losses_refuse_vmap(function):
    values = HEAD.weight if function is linear else BATCH.logits
    with pytest.raises(RuntimeError, match=r"torch\.func: expected a call outside its transforms"):
        torch.vmap(lambda x: function(ops, x))(values[None])


VIEWS = {
    "leaf": lambda p: p,
    "view": lambda p: p.view(p.shape),
    "view of views": lambda p: p.t()[None, 3:].squeeze(0).t()[:, 1:],
    "slice": lambda p: p[:, 2:],
    "chunk": lambda p: p.chunk(2, dim=1)[1],
    "split": lambda p: p.split(20, dim=1)[0],
    "unbind": lambda p: p[None].unbind()[0],
    "as_strided": lambda p: p.as_strided(p.shape, p.stride()),
    "of a detached leaf": lambda p: p.detach().requires_grad_().view(p.shape),
    "made without gradients": lambda p: no_grad_view(p),
}


def no_grad_view(p: Tensor) -> Tensor:
    with torch.no_grad():
        return p.view(p.shape)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_in_place_never_writes_over_a_leaf(view):
    batch = random_batch(vocab=40)
    batch.targets %= 8
    parameter = torch.nn.Parameter(batch.logits.clone())
    logits = view(parameter)
    message = "grpo_loss: inplace: expected logits that an op computed, got a leaf or a view of one"
    with pytest.raises(ValueError, match=message):
        ops.grpo_loss(*batch.positional(logits), **batch.keywords(), inplace=True)
    assert torch.equal(parameter.detach(), batch.logits)


@pytest.mark.parametrize("view", ["view", "view of views", "chunk"])
def test_in_place_takes_views_of_computed_logits(view):
    batch = random_batch(vocab=40)
    batch.targets %= 8
    leaf = batch.logits.clone().requires_grad_()
    gradients = []
    for inplace in (False, True):
        loss = ops.grpo_loss(
            *batch.positional(VIEWS[view](leaf * 1)), **batch.keywords(), inplace=inplace
        ).loss
        gradients += torch.autograd.grad(loss, leaf)
    assert torch.equal(*gradients)


def test_in_place_writes_nothing_in_inference_mode():
    with torch.inference_mode():
        logits = BATCH.logits * 1
        output = ops.grpo_loss(*BATCH.positional(logits), **BATCH.keywords(), inplace=True)
    assert torch.equal(logits, BATCH.logits)
    assert not output.loss.requires_grad
