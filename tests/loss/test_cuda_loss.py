"""The loss ops on CUDA, held to the CPU ops, which the other files hold to float64 and to values by hand."""

from dataclasses import replace

import pytest
import torch

from elastic import ops
from tests.loss.batches import (
    LOSSES,
    Batch,
    assert_gradient_near,
    assert_near,
    loss_and_gradient,
    offsets,
    random_batch,
    run,
)
from tests.loss.test_grpo_autograd import OPTIONS

# Both sides compute in float32, in different orders; 16-bit gradients may round to neighbours.
ERROR = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}
DTYPES = tuple(ERROR)


def on(device: torch.device, batch: Batch) -> Batch:
    return replace(batch, **{k: v.to(device) for k, v in vars(batch).items()})


def assert_cuda_matches_cpu(cuda: torch.device, batch: Batch, **options) -> None:
    there = on(cuda, batch)
    output, gradient = run(batch, **{k: getattr(batch, k) if v is ... else v for k, v in options.items()})
    got, got_gradient = run(there, **{k: getattr(there, k) if v is ... else v for k, v in options.items()})
    for name in got._fields:
        assert_near(getattr(got, name).detach().cpu(), getattr(output, name).detach(), 1e-5, name)
    assert_gradient_near(got_gradient.cpu(), gradient, ERROR[batch.logits.dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"entropy_coef": 0.02, "temperature": 0.7},
        {"softcap": 4.0, "temperature": 0.7},
        {"skip_zero_advantage": True},
        {
            "kl_coef": 0.1,
            "kl": "k3",
            "kl_weighted": True,
            "ref_logprobs": ...,
            "delta": 1.3,
            "dual_clip": 1.2,
        },
        {"engine_logprobs": ..., "engine_high": 1.2, "engine_low": 0.8},
        {"engine_logprobs": ..., "engine_high": 3.0, "engine_level": "row", "engine_mode": "mask"},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_cuda_matches_cpu(cuda, loss, dtype, options):
    assert_cuda_matches_cpu(cuda, random_batch(dtype), loss=loss, **options)


# Fewer ids than threads, fewer than a block's stride, odd, and a real vocabulary.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 37, 257, 10_001, 151_936])
def test_any_vocabulary(cuda, vocab, dtype):
    assert_cuda_matches_cpu(cuda, random_batch(dtype, vocab=vocab), entropy_coef=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, -0.25])
def test_in_place_gives_the_same_bits(cuda, dtype, factor):
    batch = on(cuda, random_batch(dtype))
    gradients = []
    for inplace in (False, True):
        leaf = batch.logits.clone().requires_grad_()
        loss = ops.grpo_loss(*batch.positional(leaf * 1), **batch.keywords(), inplace=inplace).loss
        gradients.append(torch.autograd.grad(loss * factor, leaf)[0])
    assert torch.equal(*gradients)


def test_repeats_agree_bitwise(cuda):
    batch = on(cuda, random_batch(vocab=10_001))
    for loss in LOSSES:
        first, second = run(batch, loss=loss), run(batch, loss=loss)
        assert torch.equal(first[1], second[1])
        assert torch.equal(first[0].loss, second[0].loss)


def test_offsets_beyond_32_bits(cuda):
    rows, vocab = 20_000, 151_936  # 3.04e9 elements
    if torch.cuda.mem_get_info(cuda)[0] < 8 * rows * vocab:
        pytest.fail(f"needs {8 * rows * vocab / 2**30:.0f} GiB of free GPU memory")
    logits = torch.randn(rows, vocab, device=cuda, dtype=torch.bfloat16)
    targets = torch.randint(vocab, (rows,), device=cuda)
    last = ops.token_logprobs(logits[-1:].cpu(), targets[-1:].cpu())
    got = ops.token_logprobs(logits, targets)
    assert_near(got[0][-1:].cpu(), last[0], 1e-4, "logprobs")
    assert_near(got[1][-1:].cpu(), last[1], 1e-4, "entropy")


@pytest.mark.parametrize("dtype", DTYPES)
def test_logprobs_and_their_gradient(cuda, dtype):
    batch = random_batch(dtype, vocab=1001)
    results = []
    for device in ("cpu", cuda):
        x = batch.logits.to(device).requires_grad_()
        logprobs, entropy = ops.token_logprobs(x, batch.targets.to(device), 0.8)
        (gradient,) = torch.autograd.grad((logprobs - 0.5 * entropy).sum(), x)
        results.append((logprobs.detach().cpu(), entropy.detach().cpu(), gradient.cpu()))
    assert_near(results[1][0], results[0][0], 1e-5, "logprobs")
    assert_near(results[1][1], results[0][1], 1e-5, "entropy")
    assert_gradient_near(results[1][2], results[0][2], ERROR[dtype])


@pytest.mark.parametrize("kind", ["group", "none", "batch", "rloo", "maxrl", "passk"])
def test_advantages(cuda, kind):
    sizes = (1, 8, 0, 3, 400, 2)
    rewards = torch.randint(2, (sum(sizes),), generator=torch.Generator().manual_seed(0)).float()
    expected = ops.group_advantage(rewards, offsets(sizes), kind)
    assert_near(
        ops.group_advantage(rewards.to(cuda), offsets(sizes).to(cuda), kind).cpu(), expected, 1e-6, kind
    )


@pytest.mark.parametrize("bad", [[0, 2, 5], [1, 2, 6], [0, 7, 6], [0, 4, 9], [0, -3, 6]])
def test_offsets_that_do_not_fit_make_the_loss_nan(cuda, bad):
    n = 6
    logits = torch.randn(n, 33, device=cuda, requires_grad=True)
    zeros = torch.zeros(n, device=cuda)
    output = ops.grpo_loss(
        logits, zeros.long(), zeros, torch.tensor(bad, device=cuda), torch.ones(2, device=cuda)
    )
    assert output.loss.isnan()


def test_an_id_out_of_range_makes_the_loss_nan(cuda):
    n = 6
    logits = torch.randn(n, 33, device=cuda, requires_grad=True)
    targets = torch.tensor([0, 1, 33, 3, -1, 5], device=cuda)
    zeros = torch.zeros(n, device=cuda)
    output = ops.grpo_loss(
        logits, targets, zeros, torch.tensor([0, n], device=cuda), torch.ones(1, device=cuda)
    )
    assert output.loss.isnan()
    assert output.logprobs.isnan().tolist() == [False, False, True, False, True, False]
    assert ops.token_logprobs(logits, targets)[0].isnan().tolist() == [False, False, True, False, True, False]


def test_no_tokens(cuda):
    nothing = torch.zeros(0, device=cuda)
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        torch.zeros(0, 9, device=cuda),
        nothing.long(),
        nothing,
        torch.zeros(3, dtype=torch.int64, device=cuda),
        torch.ones(2, device=cuda),
    )
    assert output.loss.item() == 0
    assert gradient.shape == (0, 9)


def test_forward_and_backward_fit_into_a_cuda_graph(cuda):
    batch = on(cuda, random_batch())
    expected, gradient = run(batch)
    leaf = batch.logits.clone().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # warm up allocations
            loss = ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss
            torch.autograd.grad(loss, leaf)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss
        (captured,) = torch.autograd.grad(loss, leaf)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, gradient)
    assert torch.equal(loss.detach(), expected.loss)


def test_tensors_on_different_devices_are_named(cuda):
    batch = random_batch()
    there = on(cuda, batch)
    with pytest.raises(ValueError, match="targets: expected a tensor on cuda:0, got one on cpu"):
        ops.grpo_loss(there.logits, batch.targets, there.old_logprobs, there.row_offsets, there.rewards)
    with pytest.raises(ValueError, match="old_logprobs: expected a tensor on cpu, got one on cuda:0"):
        ops.grpo_loss(batch.logits, batch.targets, there.old_logprobs, batch.row_offsets, batch.rewards)


def test_float64_is_refused_by_name(cuda):
    with pytest.raises(
        TypeError, match="logits: expected float32, bfloat16, float16 or, on the CPU, float64"
    ):
        ops.token_logprobs(torch.zeros(2, 5, device=cuda).double(), torch.zeros(2, device=cuda).long())


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(cuda, dtype):
    batch = on(cuda, random_batch(dtype, vocab=37))
    x = batch.logits.clone().requires_grad_()
    torch.library.opcheck(torch.ops.elastic.token_logprobs.default, (x, batch.targets, 1.0, None))
    kind = (batch.rewards, batch.group_offsets, "group", 1e-4, 4)
    torch.library.opcheck(torch.ops.elastic.group_advantage.default, kind)
    one = torch.ones((), device=cuda)
    torch.library.opcheck(torch.ops.elastic.scale_.default, (batch.logits.clone(), 2 * one))
    rest = (batch.targets, batch.old_logprobs, batch.row_offsets, None, batch.rewards, batch.group_offsets)
    rest = (*rest, batch.mask, *[None] * 5)
    options = {**OPTIONS, "kl_coef": 0.0}
    plain = torch.ops.elastic.grpo_loss.default
    torch.library.opcheck(plain, (batch.logits, *rest), {**options, "needs_gradient": True})
    torch.library.opcheck(torch.ops.elastic.grpo_loss_.default, (batch.logits.clone(), *rest), options)
