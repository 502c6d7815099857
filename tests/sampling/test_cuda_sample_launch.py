"""The sampling kernels of CUDA, run on the CPU: the reference's tokens in every launch shape, on rows of any
length and alignment, from every schedule."""

import pytest
import torch

from elastic import ops
from tests.cuda_on_cpu.launch_shapes import Shape
from tests.sampling.draws import DTYPES, SETTINGS, assert_like_reference, assert_same, batch

SHAPES: list[Shape] = [(0, 64), (0, 512), (1, 32), (2, 96), (8, 64), (16, 32)]
INF = float("inf")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_launch_shape_gives_the_references_tokens(launch, shape, dtype):
    launch(shape)
    settings = [SETTINGS[0], SETTINGS[1], SETTINGS[4], SETTINGS[7]]
    for vocab, setting in zip((1_100, 301, 2_049, 2_500), settings, strict=True):
        assert_like_reference(*batch(2, vocab, dtype, seed=vocab), **setting)


# One logit; no whole vector; a vector and loose ends; fewer vectors than units; every unit has some.
@pytest.mark.parametrize("vocab", [1, 3, 7, 8, 31, 33, 600, 4_097])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_of_any_length_and_alignment_are_the_references(launch, vocab, settings):
    launch((2, 32))
    for dtype, start in zip(DTYPES, (1, 3, 5), strict=True):
        logits, seeds, positions = batch(2, vocab, dtype, seed=start)
        memory = torch.zeros(16 + 2 * (vocab + 3), dtype=dtype)
        view = memory.as_strided((2, vocab), (vocab + 3, 1), start).copy_(logits)
        got = ops.sample(view, seeds, positions, **settings)
        assert_like_reference(logits, seeds, positions, got=got, **settings)


@pytest.mark.parametrize("shape", [(0, 512), (8, 64)], ids=["streamed", "cluster"])
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}], ids=str)
def test_a_real_vocabulary_is_the_references(launch, shape, settings):
    launch(shape)
    assert_like_reference(*batch(1, 151_936, torch.bfloat16), **settings)


def test_likely_tokens_in_every_part_of_a_row_are_drawn(launch):
    """Loose elements in front and behind, first and last units: one hot token a row."""
    launch((4, 32))
    vocab = 1_031
    hot = [0, 1, 2, 3, 4, 511, 1_023, 1_029, 1_030]
    memory = torch.full((len(hot) * vocab + 8,), -50.0)
    logits = memory.as_strided((len(hot), vocab), (vocab, 1), 1)
    for row, token in enumerate(hot):
        logits[row, token] = 0.0
    ids = torch.arange(len(hot))
    for settings in ({}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.5}):
        assert ops.sample(logits, ids, ids, **settings).tokens.tolist() == hot


def test_parameters_may_differ_from_row_to_row(launch):
    launch((2, 32))
    logits, seeds, positions = batch(4, 700)
    top_k, top_p = torch.tensor([0, 3, 700, 9]), torch.tensor([1.0, 0.5, 0.9, 1.0])
    temperature, min_p = torch.tensor([0.0, 1.0, 0.5, 2.0]), torch.tensor([0.0, 0.1, 0.0, 0.2])
    out = ops.sample(logits, seeds, positions, temperature, top_k, top_p, min_p)
    for row in range(4):
        one = slice(row, row + 1)
        settings = {
            "temperature": float(temperature[row]),
            "top_k": int(top_k[row]),
            "top_p": float(top_p[row]),
            "min_p": float(min_p[row]),
        }
        got = type(out)(*(None if part is None else part[one] for part in out))
        assert_like_reference(logits[one], seeds[one], positions[one], got=got, **settings)
    broken = torch.zeros(1, dtype=torch.int32)
    top_p[2] = 7.0  # on a device nobody reads it before
    out = ops.sample(logits, seeds, positions, temperature, top_k, top_p, min_p, broken=broken)
    assert out.logprobs.isnan().tolist() == [False, False, True, False]
    assert broken.item() == 3


@pytest.mark.parametrize("shape", [(0, 64), (4, 32)], ids=["streamed", "cluster"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.9}], ids=str)
@pytest.mark.parametrize("kind", [float("nan"), INF, -INF])
def test_an_unusable_row_is_flagged_and_leaves_the_others_alone(launch, shape, settings, kind):
    launch(shape)
    logits, seeds, positions = batch(4, 600)
    clean = ops.sample(logits, seeds, positions, **settings)
    logits[1] = logits[3] = kind
    if kind > 0 or kind != kind:
        logits[1] = 0.0
        logits[1, 599] = kind
    broken = torch.zeros(1, dtype=torch.int32)
    out = ops.sample(logits, seeds, positions, **settings, broken=broken)
    assert broken.tolist() == [2]
    assert out.logprobs.isnan().tolist() == [False, True, False, True]
    for name in ("tokens", "logprobs", "full_logprobs"):
        assert torch.equal(getattr(out, name)[::2], getattr(clean, name)[::2])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_extreme_logits_are_the_references(launch, settings):
    launch((2, 32))
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0))
    rows = [
        torch.zeros(300),
        torch.full((300,), -3e38),
        noise.masked_fill(noise > 0, -INF),
        3e38 * noise.tanh(),
        1e-40 * noise,
        torch.where(noise > 0, 0.0, -0.0),
    ]
    ids = torch.arange(len(rows))
    assert_like_reference(torch.stack(rows), ids, ids, **settings)


def test_no_schedule_changes_a_bit(launch, shim):
    launch((4, 64))
    logits, seeds, positions = batch(2, 900, torch.bfloat16)
    expected = ops.sample(logits, seeds, positions, 0.8, top_k=200, top_p=0.9)
    for schedule in range(1, 6):
        shim.set_seed(schedule)
        assert_same(ops.sample(logits, seeds, positions, 0.8, top_k=200, top_p=0.9), expected)


def test_an_empty_batch_and_many_rows_count_what_goes_on(launch):
    launch((1, 32))
    assert [len(part) for part in ops.sample(*batch(0, 5), top_p=0.5)[:3]] == [0, 0, 0]
    logits, seeds, positions = batch(1100, 2)
    logits[1050] = float("nan")
    broken = torch.zeros(1, dtype=torch.int32)
    ops.sample(logits, seeds, positions, broken=broken)
    assert broken.item() == 1051
