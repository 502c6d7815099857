"""`ops.sample` against the reference token by token, and that a draw depends on its row alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic import ops
from tests.sampling.draws import DTYPES, SETTINGS, assert_like_reference, assert_same, batch

INF = float("inf")


# One tile and less, both sides of a tile's and of a vector's end, many tiles with a short last one.
@pytest.mark.parametrize("vocab", [1, 2, 31, 512, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.05, 3.0, 200.0])
def test_tokens_and_logprobs_are_the_references(vocab, dtype, scale):
    for settings in SETTINGS:
        assert_like_reference(*batch(3, vocab, dtype, scale, seed=vocab), **settings)


@pytest.mark.parametrize("vocab", [151_936, 262_144])
def test_large_vocabularies_are_the_references(vocab):
    for dtype, settings in zip((*DTYPES, torch.float32), ({}, *SETTINGS[4:5], *SETTINGS[7:]), strict=True):
        assert_like_reference(*batch(2, vocab, dtype), **settings)


@given(
    st.integers(1, 40),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    st.integers(0, 45),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
    st.booleans(),
)
def test_any_setting_gives_the_references_tokens(vocab, seed, temperature, top_k, top_p, min_p, ties):
    logits, seeds, positions = batch(4, vocab, seed=seed)
    if ties:
        logits = logits.round()
    assert_like_reference(
        logits, seeds, positions, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )


@given(st.integers(1, 17), st.integers(0, 2**32), st.sampled_from([5, 700, 2500]), st.sampled_from(SETTINGS))
def test_a_row_draws_the_same_bits_alone_and_in_any_batch(rows, seed, vocab, settings):
    logits, seeds, positions = batch(rows, vocab, seed=seed)
    whole = ops.sample(logits, seeds, positions, **settings)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    assert_same(ops.sample(logits[order], seeds[order], positions[order], **settings), whole, order)
    for row in range(rows):
        one = slice(row, row + 1)
        assert_same(ops.sample(logits[one], seeds[one], positions[one], **settings), whole, one)


def test_rows_of_a_strided_view_and_of_an_expanded_row_draw_the_same_bits():
    wide, seeds, positions = batch(8, 1000)
    view = wide[::2, 3:600]
    assert_same(
        ops.sample(view, seeds[::2].contiguous(), positions[::2].contiguous(), top_p=0.9),
        ops.sample(view.contiguous(), seeds[::2].contiguous(), positions[::2].contiguous(), top_p=0.9),
    )
    one = wide[:1].expand(8, -1)
    assert_same(ops.sample(one, seeds, positions), ops.sample(one.contiguous(), seeds, positions))


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_of_each_row_are_those_of_a_call_for_it_alone(dtype):
    logits, seeds, positions = batch(len(SETTINGS), 3000, dtype)
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    rows = [{**defaults, **settings} for settings in SETTINGS]
    together = ops.sample(
        logits,
        seeds,
        positions,
        **{name: torch.tensor([row[name] for row in rows], dtype=torch.float64 if name != "top_k" else None)
           for name in defaults},
    )  # fmt: skip
    for i, settings in enumerate(rows):
        one = slice(i, i + 1)
        assert_same(ops.sample(logits[one], seeds[one], positions[one], **settings), together, one)


def test_narrow_logits_draw_like_their_float32_values():
    for dtype in DTYPES[1:]:
        logits, seeds, positions = batch(16, 3000, dtype)
        for settings in SETTINGS:
            narrow = ops.sample(logits, seeds, positions, **settings)
            assert_same(narrow, ops.sample(logits.float(), seeds, positions, **settings))


@pytest.mark.parametrize("vocab", [4, 5000])
def test_temperature_zero_is_argmax_with_the_lowest_id_on_ties(vocab):
    logits = torch.zeros(4, vocab)
    logits[1, 2:4] = 3.0
    logits[2, -1] = 1.0
    logits[3, 0] = -0.0  # equal to 0.0
    ids = torch.arange(4)
    out = ops.sample(logits, ids, ids, temperature=0.0, top_k=1, top_p=0.1, min_p=1.0)
    assert out.tokens.tolist() == [0, 2, vocab - 1, 0]
    assert not out.logprobs.any()
    want = logits.log_softmax(-1).gather(1, out.tokens[:, None])[:, 0]
    torch.testing.assert_close(out.full_logprobs, want)


def test_logprobs_are_those_of_float64():
    for dtype in DTYPES:
        logits, seeds, positions = batch(200, 777, dtype)
        out = ops.sample(logits, seeds, positions, 0.6, top_k=20)
        exact = (logits.double() / 0.6).log_softmax(-1)
        torch.testing.assert_close(
            out.full_logprobs.double(), exact.gather(1, out.tokens[:, None])[:, 0], rtol=2e-7, atol=2e-7
        )
        smallest = logits.topk(20).values[:, -1:]
        kept = (logits.double() / 0.6).masked_fill(logits < smallest, -INF).log_softmax(-1)
        torch.testing.assert_close(
            out.logprobs.double(), kept.gather(1, out.tokens[:, None])[:, 0], rtol=2e-7, atol=2e-7
        )
        assert (out.logprobs >= out.full_logprobs).all()
        assert (out.logprobs <= 0).all()


def test_sampling_leaves_the_logits_as_they_were():
    logits, seeds, positions = batch(4, 3000)
    before = logits.clone()
    for settings in SETTINGS:
        ops.sample(logits, seeds, positions, **settings)
    assert torch.equal(logits, before)


def test_an_empty_batch_gives_an_empty_sample():
    for settings in SETTINGS:
        assert [len(part) for part in ops.sample(*batch(0, 5), **settings)[:3]] == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "token"),
    [({"top_p": 0.5}, {0}), ({"top_p": 0.51}, {0, 1}), ({"top_k": 1}, {0}), ({"min_p": 1.0}, {0})],
)
def test_boundaries_are_met_exactly(settings, token):
    logits = torch.tensor([0.0, -1.0, -2.0, -2.0]).expand(300, -1)  # 1/2, 1/4, 1/8, 1/8 at 1 / log 2
    rows = torch.arange(300)
    out = ops.sample(logits, rows, rows, temperature=1 / 0.6931471805599453, **settings)
    assert set(out.tokens.tolist()) == token


@pytest.mark.parametrize("setting", [{"top_k": 2}, {"top_p": 0.3}, {"min_p": 1.0}])
def test_ties_at_a_threshold_are_all_kept(setting):
    logits = torch.tensor([1.0, 2.0, 0.0, 2.0, 2.0, 2.0]).expand(400, -1)
    rows = torch.arange(400)
    assert set(ops.sample(logits, rows, rows, **setting).tokens.tolist()) == {1, 3, 4, 5}
    zeros = torch.tensor([-1.0, 0.0, -0.0, 0.0]).expand(400, -1)
    assert set(ops.sample(zeros, rows, rows, **setting).tokens.tolist()) == {1, 2, 3}
