"""How `grpo_loss` sits in autograd: in place, scaled, through views, compiled; schemas that tell the
truth."""

import pytest
import torch

from elastic import ops, reference
from tests.loss.batches import DTYPES, GRADIENT_ERROR, LOSSES, assert_gradient_near, fitting, random_batch
from tests.loss.kept import random_sets

pytestmark = pytest.mark.usefixtures("kernels")

OPTIONS = {
    "temperature": 1.0,
    "softcap": None,
    "advantage": "group",
    "advantage_eps": 1e-4,
    "pass_k": 4,
    "loss": "grpo",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "delta": None,
    "dual_clip": None,
    "kl_coef": 0.1,
    "kl": "k3",
    "kl_weighted": False,
    "entropy_coef": 0.01,
    "tau_positive": 1.0,
    "tau_negative": 1.05,
    "num_tokens": None,
    "num_rows": None,
    "max_length": 9,
    "engine_mode": "truncate",
    "engine_rows": False,
    "engine_low": 0.0,
    "engine_high": 2.0,
    "skip_zero_advantage": False,
}


def through_a_head(batch, hidden, head, **options):
    """Logits as a model makes them: a matmul, seen through a view of a larger tensor."""
    logits = (hidden @ head).unsqueeze(0)[0]
    return ops.grpo_loss(*batch.positional(logits), **batch.keywords(), **fitting(**options))


def head_inputs(batch, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    n, v = batch.logits.shape
    hidden = torch.randn(n, 8, generator=generator).to(dtype).requires_grad_()
    return hidden, torch.randn(8, v, generator=generator).to(dtype).requires_grad_()


def head_gradients(batch, factor=1.0, dtype=torch.float32, **options):
    hidden, head = head_inputs(batch, dtype)
    output = through_a_head(batch, hidden, head, **options)
    (output.loss * factor).backward()
    return output, hidden.grad, head.grad


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
@pytest.mark.parametrize("factor", [1.0, -0.25])
def test_in_place_gives_the_same_bits(loss, dtype, entropy_coef, factor):
    batch = random_batch(dtype)
    options = {"loss": loss, "entropy_coef": entropy_coef, "factor": factor, "dtype": dtype}
    plain, *gradients = head_gradients(batch, **options)
    inplace, *again = head_gradients(batch, **options, inplace=True)
    for name in plain._fields:
        assert torch.equal(getattr(plain, name), getattr(inplace, name)), name
    for expected, got in zip(gradients, again, strict=True):
        assert torch.equal(expected, got)


def test_in_place_allocates_no_second_logits():
    batch = random_batch(lengths=(4,), groups=(1,), vocab=50_001)
    logits = batch.logits.clone().requires_grad_() * 1
    loss = ops.grpo_loss(*batch.positional(logits), torch.ones(1), inplace=True).loss
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.data_ptr() == logits.data_ptr(), "the gradient lies where the logits were"


def test_without_in_place_logits_survive():
    batch = random_batch()
    leaf = batch.logits.clone().requires_grad_()
    ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss.backward()
    assert torch.equal(leaf.detach(), batch.logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, 3.0, 0.0, -0.5])
def test_the_incoming_gradient_scales(dtype, factor):
    batch = random_batch(dtype)
    leaf, exact = batch.logits.clone().requires_grad_(), batch.logits.double().requires_grad_()
    (ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss * factor).backward()
    wide = batch.double()
    (reference.grpo_loss(*wide.positional(exact), **wide.keywords()).loss * factor).backward()
    if factor == 0:
        assert (leaf.grad == 0).all()
    else:  # 16 bits are rounded once more by the scaling
        assert_gradient_near(leaf.grad, exact.grad, 1.5 * GRADIENT_ERROR[dtype])


def test_backward_of_the_loss_itself_makes_no_second_pass():
    """A factor of 1 hands out the stored gradient as it is."""
    batch = random_batch()
    leaf = batch.logits.clone().requires_grad_()
    loss = ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss
    stored = loss.grad_fn.saved_tensors[0]
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.data_ptr() == stored.data_ptr()


def test_losses_of_two_batches_add_up():
    hidden, head = head_inputs(random_batch())
    batches = [random_batch(seed=1), random_batch(seed=2)]
    sum(through_a_head(b, hidden, head, inplace=True).loss for b in batches).backward()
    separate = [torch.autograd.grad(through_a_head(b, hidden, head).loss, [hidden, head]) for b in batches]
    torch.testing.assert_close(hidden.grad, separate[0][0] + separate[1][0])
    torch.testing.assert_close(head.grad, separate[0][1] + separate[1][1])


def test_logits_that_another_op_saved_are_not_overwritten_silently():
    batch = random_batch()
    hidden, head = head_inputs(batch)
    logits = hidden @ head
    other = (logits * logits).mean()  # saves the logits for its own backward
    loss = ops.grpo_loss(*batch.positional(logits), **batch.keywords(), inplace=True).loss
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + other).backward()


@pytest.mark.parametrize("inplace", [False, True])
def test_nothing_is_written_where_no_gradient_is_needed(inplace):
    batch = random_batch()
    before = batch.logits.clone()
    output = ops.grpo_loss(*batch.positional(batch.logits), **batch.keywords(), inplace=inplace)
    assert not output.loss.requires_grad
    leaf = batch.logits.requires_grad_()
    with torch.no_grad():
        again = ops.grpo_loss(*batch.positional(leaf), **batch.keywords(), inplace=inplace)
    assert not again.loss.requires_grad
    assert torch.equal(leaf.detach(), before)
    assert torch.equal(again.loss, output.loss)


def test_only_the_loss_is_differentiable():
    batch = random_batch()
    leaf = batch.logits.clone().requires_grad_()
    output = ops.grpo_loss(*batch.positional(leaf), **batch.keywords())
    assert output.loss.requires_grad
    assert not any(getattr(output, name).requires_grad for name in output._fields if name != "loss")


def test_old_logprobs_and_rewards_are_data():
    batch = random_batch()
    leaf = batch.logits.clone().requires_grad_()
    batch.old_logprobs.requires_grad_()
    batch.rewards.requires_grad_()
    ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss.backward()
    assert batch.old_logprobs.grad is None
    assert batch.rewards.grad is None


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_compiles_into_one_graph(inplace, factor):
    batch = random_batch()
    expected = head_gradients(batch, factor=factor, loss="dapo", num_tokens=40, inplace=inplace)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(hidden, head):
        output = through_a_head(batch, hidden, head, loss="dapo", num_tokens=40, inplace=inplace)
        return output.loss * factor, output.logprobs

    hidden, head = head_inputs(batch)
    value, logprobs = compiled(hidden, head)
    value.backward()
    assert value.item() == pytest.approx(expected[0].loss.item() * factor, abs=1e-7)
    assert torch.equal(logprobs, expected[0].logprobs)
    torch.testing.assert_close(hidden.grad, expected[1])
    torch.testing.assert_close(head.grad, expected[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_opcheck(dtype, loss):
    batch = random_batch(dtype, vocab=37)
    advantages = ops.group_advantage(batch.rewards, batch.group_offsets)
    first = (batch.targets, batch.old_logprobs, batch.row_offsets)
    kept = random_sets(batch.targets, 37).values()
    last = (batch.mask, batch.ref_logprobs, batch.engine_logprobs, None, *kept)
    options = {**OPTIONS, "loss": loss, "softcap": 5.0 if loss == "grpo" else None}
    plain = torch.ops.elastic.grpo_loss.default
    leaf = batch.logits.clone().requires_grad_()
    for logits, needs_gradient in ((batch.logits, False), (leaf, False), (leaf, True)):
        for advantage in ((advantages, None, None), (None, batch.rewards, batch.group_offsets)):
            tensors = (*first, *advantage, *last)
            keywords = {**options, "needs_gradient": needs_gradient}
            torch.library.opcheck(plain, (logits, *tensors), keywords)
    torch.library.opcheck(torch.ops.elastic.grpo_loss_.default, (batch.logits.clone(), *tensors), options)
    torch.library.opcheck(
        torch.ops.elastic.scale_.default, (batch.logits.clone(), torch.tensor(2.0, dtype=advantages.dtype))
    )


def test_schemas_say_what_is_written():
    names = ("grpo_loss", "grpo_loss_", "scale_")
    schemas = {name: getattr(torch.ops.elastic, name).default._schema for name in names}
    assert not schemas["grpo_loss"].is_mutable
    for name in ("grpo_loss_", "scale_"):
        arguments = schemas[name].arguments
        written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
        assert written == [schemas[name].arguments[0].name]
