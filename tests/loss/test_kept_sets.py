"""The loss ops among kept sets, against the float64 reference and against what they are without."""

import pytest
import torch

from elastic import ops, reference
from elastic.reference.logprobs import kept_mask
from tests.loss.batches import (
    DTYPES,
    GRADIENT_ERROR,
    LOSSES,
    VALUE_ERROR,
    assert_gradient_near,
    assert_matches_reference,
    assert_near,
    computed,
    fitting,
    loss_and_gradient,
    random_batch,
)
from tests.loss.heads import HEAD_ERROR, assert_same_results, random_head, value_error
from tests.loss.heads import run as run_head
from tests.loss.kept import kept_of, random_sets

pytestmark = pytest.mark.usefixtures("kernels")

OPTIONS = ({}, {"temperature": 0.6}, {"softcap": 3.0, "temperature": 0.6})


def logprobs_and_gradient(op, logits, targets, **options):
    leaf = logits.detach().clone().requires_grad_()
    logprobs, entropy = op(leaf, targets, **options)
    weights = torch.linspace(-1, 1, 2 * len(targets), dtype=logprobs.dtype).view(2, -1)
    total = (weights[0] * logprobs).sum() + (weights[1] * entropy).sum()
    return logprobs.detach(), entropy.detach(), torch.autograd.grad(total, leaf)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [5, 301, 4097])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_logprobs_and_gradients_match_float64(dtype, vocab, options):
    batch = random_batch(dtype, vocab=vocab)
    options = {**options, **random_sets(batch.targets, vocab)}
    exact = logprobs_and_gradient(reference.token_logprobs, batch.logits.double(), batch.targets, **options)
    got = logprobs_and_gradient(ops.token_logprobs, batch.logits, batch.targets, **options)
    assert_near(got[0], exact[0], VALUE_ERROR[dtype], "logprobs")
    assert_near(got[1], exact[1], VALUE_ERROR[dtype], "entropy")
    assert_gradient_near(got[2], exact[2], GRADIENT_ERROR[dtype])
    outside = ~kept_mask(options["kept_ids"], options["kept_offsets"], vocab)
    assert (got[2][outside] == 0).all()


def test_each_token_has_its_temperature():
    batch = random_batch()
    options = {"temperature": torch.linspace(0.5, 1.5, len(batch.targets)), "softcap": 4.0}
    options |= random_sets(batch.targets, 301)
    exact = logprobs_and_gradient(reference.token_logprobs, batch.logits.double(), batch.targets, **options)
    got = logprobs_and_gradient(ops.token_logprobs, batch.logits, batch.targets, **options)
    assert_near(got[0], exact[0], 1e-5, "logprobs")
    assert_gradient_near(got[2], exact[2], 1e-5)
    assert_matches_reference(batch, **options, entropy_coef=0.1)


def test_strided_rows_and_minus_infinity():
    batch = random_batch()
    wide = torch.full((2 * len(batch.logits), 307), torch.nan)
    window = wide[1::2, 3:304]  # rows off every boundary
    window.copy_(batch.logits)
    kept = random_sets(batch.targets, 301)
    ids, offsets = kept["kept_ids"].long(), kept["kept_offsets"]
    token = torch.repeat_interleave(torch.arange(len(batch.targets)), offsets.diff())
    lost = ids != batch.targets[token]
    window[token[lost][::3], ids[lost][::3]] = -torch.inf
    got = logprobs_and_gradient(ops.token_logprobs, window, batch.targets, **kept)
    exact = logprobs_and_gradient(reference.token_logprobs, window.double(), batch.targets, **kept)
    for one, other, name in zip(got, exact, ("logprobs", "entropy", "gradient"), strict=True):
        assert_near(one, other, 1e-5, name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extras", [{}, {"entropy_coef": 0.1, "softcap": 5.0}], ids=str)
def test_every_loss_matches_float64(loss, dtype, extras):
    batch = random_batch(dtype)
    options = {"ref_logprobs": ..., "engine_logprobs": ..., "kl_coef": 0.04, "temperature": 0.7, **extras}
    assert_matches_reference(batch, loss=loss, **options, **random_sets(batch.targets, 301))


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_in_place_gives_the_same_bits(loss):
    batch = random_batch()
    options = {**batch.keywords(), **fitting(loss=loss), **random_sets(batch.targets, 301)}
    output, gradient = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **options)
    leaf = batch.logits.clone().requires_grad_()
    inplace = ops.grpo_loss(*batch.positional(computed(leaf)), inplace=True, **options)
    assert torch.equal(inplace.loss, output.loss)
    assert torch.equal(torch.autograd.grad(inplace.loss, leaf)[0], gradient)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_hidden_states_give_what_their_logits_give(dtype, loss, softcap):
    head = random_head(dtype, bias=True)
    options = {"loss": loss, "softcap": softcap, **random_sets(head.batch.targets, 101)}
    exact = run_head(reference.linear_grpo_loss, head.double(), **options)
    for gather in (True, False):
        got = run_head(ops.linear_grpo_loss, head, chunk_tokens=5, gather=gather, **options)
        assert_same_results(got, exact, value_error(dtype), HEAD_ERROR[dtype])


def test_logprobs_of_hidden_states_are_those_of_their_logits():
    head = random_head().leaves()
    kept = random_sets(head.batch.targets, 101)
    arguments = (head.hidden, head.weight, head.batch.targets, 0.7)
    got = ops.linear_token_logprobs(*arguments, chunk_tokens=5, **kept)
    expected = reference.linear_token_logprobs(*arguments, **kept)
    for one, other in zip(got, expected, strict=True):
        assert_near(one.detach(), other.detach(), 1e-5, "logprobs and entropy")
        gradients = [torch.autograd.grad(x.sum(), head.tensors(), retain_graph=True) for x in (one, other)]
        for have, want in zip(*gradients, strict=True):
            assert_gradient_near(have, want, 1e-5)


def test_without_any_id_every_bit_is_that_without_sets():
    batch = random_batch()
    none = kept_of([[]] * len(batch.targets))
    for options in ({}, none):
        options = {"entropy_coef": 0.1, **options, **batch.keywords()}
        output, gradient = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **options)
        first = locals().get("first") or (*output, gradient)
    assert all(torch.equal(one, other) for one, other in zip(first, (*output, gradient), strict=True))


def test_with_every_id_results_are_those_without_sets():
    batch = random_batch()
    everything = kept_of([list(range(301))] * len(batch.targets))
    plain = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords())
    kept = {**batch.keywords(), **everything}
    output, gradient = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **kept)
    assert_near(output.logprobs, plain[0].logprobs, 2e-6, "logprobs")
    assert_gradient_near(gradient, plain[1], 1e-6)


def test_logits_outside_of_the_set_are_not_read():
    batch = random_batch()
    kept = random_sets(batch.targets, 301)
    outside = ~kept_mask(kept["kept_ids"], kept["kept_offsets"], 301)
    for loss in ("grpo", "gspo"):
        options = {**batch.keywords(), **kept, "loss": loss}
        clean = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **options)
        dirty = batch.logits.masked_fill(outside, torch.nan)
        output, gradient = loss_and_gradient(ops.grpo_loss, *batch.positional(dirty), **options)
        assert torch.equal(output.loss, clean[0].loss)
        assert torch.equal(gradient, clean[1])
