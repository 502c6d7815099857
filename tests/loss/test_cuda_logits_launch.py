"""The CUDA kernels of a logits pass, run on the CPU, in every launch shape (resident on 1 to 16 blocks,
streamed, the ring on 1 to 16 blocks) and on rows of any length, stride and alignment."""

import pytest
import torch
from torch import Tensor

from elastic import ops, reference
from tests.cuda_on_cpu.launch_shapes import DIRECT, RING, TABLE, Shape
from tests.loss.batches import (
    GRADIENT_ERROR,
    LOSSES,
    Batch,
    assert_gradient_near,
    assert_matches_reference,
    assert_near,
    fitting,
    loss_and_gradient,
    random_batch,
)

STREAMED: Shape = (0, 256)
# Warps: more than a block has units (16 x 512), as many, fewer; one warp.
# (0, 32) has room for 4 KB of a streamed row.
SHAPES: list[Shape] = [(0, 32), (0, 1024), (1, 64), (2, 512), (4, 128), (8, 256), (16, 32), (16, 512)]
RINGS: list[Shape] = [
    RING,
    (2, 0, "ring_direct"),
    (1, 0, "ring"),
    (4, 0, "ring"),
    (8, 0, "ring_direct"),
    (16, 0, "ring"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OUTPUTS = ("loss", "logprobs", "entropy", "advantages", "clip_fraction", "kl", "gradient")
# One logit; no whole vector; fewer vectors than units; one warp's lanes and one more; every unit has some.
VOCABULARIES = (1, 7, 31, 32, 33, 301, 4_097)


def outputs(batch: Batch, logits: Tensor, **options) -> list[Tensor]:
    """Everything that one call and its backward write."""
    result, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(logits), **batch.keywords(), **fitting(**options)
    )
    return [*(x.detach() for x in result), gradient]


def few(dtype: torch.dtype, vocab: int, **options) -> Batch:
    return random_batch(dtype, lengths=(2, 1), groups=(2,), vocab=vocab, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_the_launch_shape_changes_no_bit(launch, vocab, dtype):
    batch = few(dtype, vocab, seed=vocab)
    for options in ({}, {"entropy_coef": 0.02, "temperature": 0.7, "softcap": 5.0}):
        expected = outputs(batch, batch.logits, **options)
        for shape in SHAPES + RINGS:
            launch(shape)
            for name, got, want in zip(
                OUTPUTS,
                outputs(batch, batch.logits, **options),
                expected,
                strict=True,
            ):
                assert torch.equal(got, want), f"{name} differs on {shape}"
        launch(TABLE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [STREAMED, (8, 256), RING], ids=["streamed", "cluster", "ring"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_matches_float64(launch, loss, shape, dtype):
    launch(shape)
    batch = random_batch(dtype, vocab=1_001, seed=5, temperature=0.7)
    kl = {"kl": "k3", "kl_coef": 0.1, "ref_logprobs": ...}
    assert_matches_reference(batch, loss=loss, entropy_coef=0.02, temperature=0.7, **kl)
    assert_matches_reference(batch, loss=loss, temperature=0.7, softcap=40.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [STREAMED, (8, 64), RING], ids=["streamed", "cluster", "ring"])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_logprobs_match_float64(launch, softcap, shape, dtype):
    launch(shape)
    batch = few(dtype, 1_001)
    exact = reference.token_logprobs(batch.logits.double(), batch.targets, 0.7, softcap=softcap)
    got = ops.token_logprobs(batch.logits, batch.targets, 0.7, softcap=softcap)
    assert_near(got[0], exact[0], 1e-5, "logprobs")
    assert_near(got[1], exact[1], 1e-5, "entropy")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [STREAMED, (1, 64), (8, 64), RING, DIRECT],
    ids=["streamed", "block", "cluster", "ring", "direct"],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_rows_may_start_anywhere_and_nothing_beside_them_is_written(launch, inplace, shape, dtype):
    launch(shape)
    for vocab, pad, start in ((1, 2, 1), (9, 0, 3), (301, 4, 0), (301, 3, 7), (1_024, 1, 5)):
        batch = few(dtype, vocab, seed=start)
        rows = len(batch.targets)
        memory = torch.full((16 + rows * (vocab + pad),), 7.0, dtype=dtype)
        x = memory[start:].as_strided((rows, vocab), (vocab + pad, 1), start).copy_(batch.logits)
        expected, wanted = loss_and_gradient(
            reference.grpo_loss,
            *batch.double().positional(batch.logits.double()),
            **batch.double().keywords(),
        )
        leaf = torch.zeros_like(batch.logits, requires_grad=True)
        output = ops.grpo_loss(*batch.positional(_Carry.apply(leaf, x)), **batch.keywords(), inplace=inplace)
        (gradient,) = torch.autograd.grad(output.loss, leaf)
        assert_near(output.logprobs.detach(), expected.logprobs.detach(), 1e-5, "logprobs")
        assert_gradient_near(gradient, wanted, GRADIENT_ERROR[dtype])
        assert torch.equal(x, gradient if inplace else batch.logits)
        x.fill_(7.0)
        assert (memory == 7.0).all(), "wrote beside the rows"


class _Carry(torch.autograd.Function):
    """Puts `value` into the graph in the place of `leaf`, without a copy that would align it."""

    @staticmethod
    def forward(ctx, leaf: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clone(), None


@pytest.mark.parametrize("shape", [STREAMED, (8, 64), RING], ids=["streamed", "cluster", "ring"])
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_masked_rows_are_not_read_and_get_a_zero_gradient(launch, loss, shape):
    launch(shape)
    batch = few(torch.bfloat16, 301)
    batch.mask[:] = torch.tensor([True, False, True])
    batch.rewards[:] = torch.tensor([0.0, 1.0])
    whole = outputs(batch, batch.logits, loss=loss)
    hidden = batch.logits.clone()
    hidden[1] = torch.nan
    for got, want in zip(outputs(batch, hidden, loss=loss), whole, strict=True):
        assert torch.equal(got, want)
    assert (whole[-1][1] == 0).all()
    assert (whole[-1][0] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [STREAMED, (8, 64), RING], ids=["streamed", "cluster", "ring"])
def test_infinite_and_nan_logits(launch, shape, dtype):
    launch(shape)
    batch = few(dtype, 4_097)
    for spoil, place in ((torch.nan, 4_000), (torch.inf, 3), (-torch.inf, slice(None))):
        logits = batch.logits.clone()
        logits[1, place] = spoil
        logprobs, entropy = ops.token_logprobs(logits, batch.targets)
        assert logprobs.isnan().tolist() == entropy.isnan().tolist() == [False, True, False]
    logits = batch.logits.clone()
    logits[:, ::3] = -torch.inf
    batch.targets[:] = torch.tensor([1, 4_096, 2_000])
    exact = reference.token_logprobs(logits.double(), batch.targets)
    for got, want in zip(ops.token_logprobs(logits, batch.targets), exact, strict=True):
        assert_near(got, want, 1e-5, "token_logprobs")
    gradient = outputs(batch, logits, entropy_coef=0.1)[-1]
    assert gradient.isfinite().all()
    assert (gradient[:, ::3] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [STREAMED, (8, 64), RING], ids=["streamed", "cluster", "ring"])
def test_a_certain_token_has_logprob_and_gradient_exactly_zero(launch, shape, dtype):
    launch(shape)
    batch = few(dtype, 33)
    batch.logits[:] = -50.0
    batch.logits[torch.arange(3), batch.targets] = 90.7
    batch.rewards[:] = torch.tensor([0.0, 1.0])
    batch.old_logprobs[:] = 0
    got = outputs(batch, batch.logits, entropy_coef=0.1, temperature=0.3)
    assert (got[1] == 0).all()
    assert (got[2] == 0).all()
    assert (got[-1] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [TABLE, RING], ids=["pass", "ring"])
def test_a_real_vocabulary_in_the_table_s_own_shape(launch, shim, shape, dtype):
    resident, cluster, _, _ = shim.logits_launch(dtype, 151_936, True)
    assert (resident, cluster) == (True, 8)
    launch(shape)
    batch = random_batch(dtype, lengths=(1, 1), groups=(2,), vocab=151_936)
    batch.rewards[:] = torch.tensor([0.0, 1.0])
    batch.mask[:] = True
    assert_matches_reference(batch, entropy_coef=0.01)


def test_the_longest_rows_take_sixteen_blocks_or_are_streamed(launch, shim):
    for vocab, resident, cluster in ((262_144, True, 8), (700_001, True, 16), (1_000_003, False, 1)):
        assert shim.logits_launch(torch.float32, vocab, True)[:2] == (resident, cluster)
    batch = random_batch(lengths=(1,), groups=(1,), vocab=1_000_003)
    exact = reference.token_logprobs(batch.logits.double(), batch.targets)
    for got, want in zip(ops.token_logprobs(batch.logits, batch.targets), exact, strict=True):
        assert_near(got, want, 1e-5, "token_logprobs")
    launch((16, 64))
    with pytest.raises(RuntimeError, match=r"logits_kernel.*launch failed"):
        ops.token_logprobs(batch.logits, batch.targets)


def test_a_device_without_clusters_streams_with_the_same_bits(launch, shim):
    batch = few(torch.bfloat16, 4_097)
    expected = outputs(batch, batch.logits)
    shim.set_device(8)
    assert not shim.logits_launch(torch.bfloat16, 4_097, True)[0]
    for got, want in zip(outputs(batch, batch.logits), expected, strict=True):
        assert torch.equal(got, want)


def test_a_kernel_that_there_is_not_is_refused_by_name(shim):
    with pytest.raises(ValueError, match="kernel: expected table, pass, ring or ring_direct, got rings"):
        shim.set_logits_launch(-1, 0, "rings")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", RINGS)
def test_the_ring_has_the_pass_s_bits_when_its_slots_and_open_tokens_come_round(launch, shim, shape, dtype):
    """Up to 47 tokens a cluster; 40 to 90 KB of shared memory leave a few slots."""
    for vocab, lengths, block_kb in ((301, (20, 0, 17, 10), 227), (2_011, (6, 5), 40), (9_001, (2, 3), 90)):
        batch = random_batch(dtype, lengths=lengths, groups=(len(lengths),), vocab=vocab, seed=vocab)
        launch(TABLE)
        shim.set_device()
        expected = [*outputs(batch, batch.logits), *ops.token_logprobs(batch.logits, batch.targets)]
        launch(shape)
        shim.set_device(9, block_kb)
        for seed in range(2):
            shim.set_seed(seed)
            got = [*outputs(batch, batch.logits), *ops.token_logprobs(batch.logits, batch.targets)]
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True)), (vocab, seed)


def test_a_token_that_a_ring_cannot_hold_is_refused(launch):
    launch((1, 0, "ring"))
    batch = few(torch.float32, 100_003)
    assert ops.token_logprobs(batch.logits, batch.targets)[0].isfinite().all()  # it need not be held
    with pytest.raises(RuntimeError, match=r"grpo_loss: kernel ring_kernel: launch failed"):
        outputs(batch, batch.logits)


@pytest.mark.parametrize("shape", [(8, 128), RING], ids=["cluster", "ring"])
def test_no_schedule_changes_a_bit(launch, shim, shape):
    batch = few(torch.float32, 1_001)
    launch(shape)
    expected = outputs(batch, batch.logits, entropy_coef=0.02)
    for seed in range(1, 6):
        shim.set_seed(seed)
        for got, want in zip(outputs(batch, batch.logits, entropy_coef=0.02), expected, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 0),
        (32, 0),
        (-2, 0),
        (8, 33),
        (8, 2_048),
        (8, -32),
        (0, 0, "ring"),
        (3, 0, "ring"),
        (4, 576, "ring"),
    ],
)
def test_a_shape_that_no_launch_can_have_is_refused(shim, shape):
    before = shim.logits_launch(torch.float32, 301, True)
    assert not shim.set_logits_launch(*shape)
    assert shim.logits_launch(torch.float32, 301, True) == before


def test_the_table_keeps_four_blocks_an_sm_where_rows_allow_it(shim):
    for vocab in (1, 301, 32_000, 50_257, 128_256, 151_936):
        resident, _, threads, shared_bytes = shim.logits_launch(torch.bfloat16, vocab, True)
        assert resident
        assert threads == 256
        assert 4 * (shared_bytes + 1024) <= 228 * 1024
    assert shim.logits_launch(torch.float32, 151_936, True)[:3] == (True, 8, 512)
