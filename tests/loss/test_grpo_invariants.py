"""What must hold whatever the numbers are, and the mistakes of the paper's code by name."""

from itertools import pairwise

import pytest
import torch

from elastic import ops, reference
from tests.loss.batches import (
    DTYPES,
    LOSSES,
    assert_gradient_near,
    assert_near,
    fitting,
    loss_and_gradient,
    offsets,
    random_batch,
    run,
)

pytestmark = pytest.mark.usefixtures("kernels")


def rows_of(batch, first, last):
    """A micro-batch: rows first up to last, with the advantages of the whole batch."""
    a, b = int(batch.row_offsets[first]), int(batch.row_offsets[last])
    return slice(a, b), batch.row_offsets[first : last + 1] - a


@pytest.mark.parametrize("loss", [x for x in LOSSES if x != "bnpo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_micro_batches_average_instead_of_adding_up(loss, dtype):
    """Eight micro-batches of one row give the gradient of one batch of eight rows, of rows 3 + 5 as well."""
    batch = random_batch(dtype, lengths=(3, 1, 7, 4, 0, 5, 2, 6), groups=(4, 4))
    whole, gradient = run(batch, loss=loss)
    total = {"num_tokens": int(batch.mask.sum()), "num_rows": 8}
    for cuts in (range(9), (0, 3, 8), (0, 8)):
        parts, value = [], 0.0
        for first, last in pairwise(cuts):
            tokens, row_offsets = rows_of(batch, first, last)
            output, part = loss_and_gradient(
                ops.grpo_loss,
                batch.logits[tokens],
                batch.targets[tokens],
                batch.old_logprobs[tokens],
                row_offsets,
                whole.advantages[first:last],
                mask=batch.mask[tokens],
                **fitting(loss=loss),
                **total,
            )
            parts.append(part)
            value += output.loss.item()
        assert value == pytest.approx(whole.loss.item(), abs=1e-6)
        assert_gradient_near(torch.cat(parts), gradient, 1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_order_of_rows_does_not_matter(kernels, loss):
    batch = random_batch(lengths=(3, 2, 7, 4), groups=(4,))
    straight, gradient = run(batch, loss=loss)
    order = [2, 0, 3, 1]
    spans = [slice(int(a), int(b)) for a, b in zip(batch.row_offsets, batch.row_offsets[1:], strict=False)]
    index = torch.cat([torch.arange(len(batch.targets))[spans[r]] for r in order])
    output, shuffled = loss_and_gradient(
        ops.grpo_loss,
        batch.logits[index],
        batch.targets[index],
        batch.old_logprobs[index],
        offsets(tuple(spans[r].stop - spans[r].start for r in order)),
        straight.advantages[order],
        mask=batch.mask[index],
        **fitting(loss=loss),
    )
    assert output.loss.item() == pytest.approx(straight.loss.item(), abs=1e-6)
    # CUDA kernels sum in the order of 16-byte words, and those lie elsewhere in an odd row.
    error = 0 if kernels == "cpu" else 2e-6
    assert_near(output.logprobs, straight.logprobs[index], error, "logprobs")
    assert_gradient_near(shuffled, gradient[index], 1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_thread_counts_agree_bitwise(loss, dtype):
    # 66,001 ids: more than one token's worth of the smallest share of work, so that two threads really run.
    batch = random_batch(dtype, lengths=(2, 3), groups=(2,), vocab=66_001)
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(
                run(batch, loss=loss, entropy_coef=0.01, kl_coef=0.1, ref_logprobs=batch.ref_logprobs)
            )
    finally:
        torch.set_num_threads(1)
    (one, gradient), (two, gradient_two) = results
    assert torch.equal(gradient, gradient_two)
    for name in one._fields:
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize("loss", LOSSES)
def test_repeats_agree_bitwise(loss):
    batch = random_batch()
    first, second = run(batch, loss=loss), run(batch, loss=loss)
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0].loss, second[0].loss)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("inplace", [False, True])
def test_forced_tokens_carry_no_loss(loss, inplace):
    """Paper's code: the forced `</think>` took the row's full advantage."""
    batch = random_batch()
    forced = ~batch.mask
    options = {"loss": loss, "kl_coef": 0.1, "ref_logprobs": batch.ref_logprobs, "entropy_coef": 0.1}
    options |= {"engine_logprobs": batch.engine_logprobs, "engine_level": "row"}
    output, gradient = run(batch, **options, inplace=False)
    assert (gradient[forced] == 0).all()
    assert (output.logprobs[forced] == 0).all()

    # Whatever a forced token holds changes nothing: not ratio, denominator, KL, entropy, nor other tokens.
    for filling in (torch.nan, torch.inf, -torch.inf, 1e4):
        batch.logits[forced] = filling
        batch.old_logprobs[forced] = filling
        batch.ref_logprobs[forced] = filling
        batch.engine_logprobs[forced] = filling
        batch.targets[forced] = -100
        leaf = batch.logits.clone().requires_grad_()
        again = ops.grpo_loss(
            *batch.positional(leaf * 1),
            **batch.keywords(),
            **fitting(**options),
            inplace=inplace,
        )
        (poisoned,) = torch.autograd.grad(again.loss, leaf)
        assert torch.equal(poisoned, gradient)
        for name in output._fields:
            assert torch.equal(getattr(again, name), getattr(output, name)), name


def test_a_batch_without_its_forced_tokens_is_the_same_batch():
    batch = random_batch()
    kept = batch.mask
    output, gradient = run(batch)
    lengths = tuple(int(kept[a:b].sum()) for a, b in pairwise(batch.row_offsets.tolist()))
    short, short_gradient = loss_and_gradient(
        ops.grpo_loss,
        batch.logits[kept],
        batch.targets[kept],
        batch.old_logprobs[kept],
        offsets(lengths),
        output.advantages,
    )
    assert torch.equal(short.loss, output.loss)
    assert torch.equal(short_gradient, gradient[kept])


def test_the_clipped_loss_is_what_is_averaged():
    """Paper's code: clipping was computed, and the unclipped loss averaged."""
    batch = random_batch(lengths=(8,), groups=(1,))
    batch.mask[:] = True
    logprobs = reference.token_logprobs(batch.logits, batch.targets)[0]
    batch.old_logprobs = logprobs - torch.tensor([2.0] * 8).log()  # every ratio is 2
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), torch.tensor([1.0]), mask=batch.mask
    )
    assert output.loss.item() == pytest.approx(-1.2, abs=1e-5), "-2.0 would be the unclipped loss"
    assert (gradient == 0).all()
    assert output.clip_fraction.item() == 1


def test_padding_that_looks_like_eos_stays_out_of_the_loss():
    """Paper's code: pad = EOS put a phantom EOS into the loss. Only the mask counts, never the id."""
    eos = 2
    batch = random_batch(lengths=(6, 6), groups=(2,))
    batch.targets[:] = eos
    batch.old_logprobs = ops.token_logprobs(batch.logits, batch.targets)[0]
    batch.rewards = torch.tensor([1.0, 0.0])
    batch.mask[:] = True
    batch.mask[4:6] = False  # padding behind row 0's EOS
    _, gradient = run(batch)
    assert (gradient[4:6] == 0).all()
    assert (gradient[:4] != 0).any(-1).all(), "a sampled EOS does carry loss"


def test_logprobs_behind_a_forced_token_are_not_shifted():
    """Paper's code: logprobs slipped by one position after the forced token."""
    batch = random_batch()
    alone = ops.token_logprobs(batch.logits, batch.targets)[0]
    output, _ = run(batch)
    assert torch.equal(output.logprobs[batch.mask], alone[batch.mask])


def test_two_updates_of_a_batch_need_only_the_old_logprobs():
    """The first is on-policy (old = current), a plain policy gradient. The second has moved away from the
    policy that sampled; its ratios come from the same old logprobs."""
    batch = random_batch()
    current = ops.token_logprobs(batch.logits, batch.targets)[0]
    batch.old_logprobs = current
    output, gradient = run(batch, loss="dapo")
    x = batch.logits.clone().requires_grad_()
    lengths = batch.row_offsets.diff()
    weight = output.advantages.repeat_interleave(lengths) * batch.mask / batch.mask.sum()
    (expected,) = torch.autograd.grad(-(reference.token_logprobs(x, batch.targets)[0] * weight).sum(), x)
    assert_gradient_near(gradient, expected, 1e-5)
    assert output.clip_fraction.item() == 0
    batch.logits = batch.logits - 30 * gradient
    second, gradient = run(batch, loss="dapo")
    x = batch.logits.double().requires_grad_()
    logprobs = x.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    ratio = (logprobs - current.double()).exp()
    clipped = torch.minimum(ratio * weight, ratio.clamp(0.8, 1.2) * weight)  # weight: positive times A
    (expected,) = torch.autograd.grad(-clipped.sum(), x)
    assert second.loss.item() == pytest.approx(-clipped.sum().item(), abs=1e-5)
    assert_gradient_near(gradient, expected, 1e-5)
    assert 0 < second.clip_fraction.item() < 1
