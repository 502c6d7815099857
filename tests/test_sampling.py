"""`elastic.sampling`: the generator, the filters, and that a draw depends on its own row alone."""

import math

import pytest
import torch

from elastic.sampling import Sampling, draw, philox, row_seeds, sample, uniforms

INF = float("inf")


def words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


# Known answers for 10 rounds, published with the Random123 library.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, expected):
    assert tuple(int(word) for word in philox(words(*counter), words(*key))) == expected


def test_a_uniform_is_the_first_two_philox_words():
    got = uniforms(torch.tensor([0]), torch.tensor([0]))
    assert got.item() == ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53


def test_seeds_and_positions_use_all_their_bits():
    seeds = torch.tensor([1, 1 + 2**32, 1 + 2**62, 1, 1])
    positions = torch.tensor([5, 5, 5, 6, 5 + 2**32])
    assert uniforms(seeds, positions).unique().numel() == 5


def test_uniforms_are_uniform_over_positions_and_over_seeds():
    along = uniforms(torch.tensor(7), torch.arange(20_000))
    across = uniforms(torch.tensor(row_seeds(3, 20_000)), torch.tensor(0))
    for values in (along, across):
        counts = torch.histc(values.float(), bins=50, min=0, max=1)
        assert float(((counts - 400) ** 2 / 400).sum()) < 95  # chi-square, 49 degrees: p < 1e-4
        lag = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
        assert abs(float(lag)) < 0.03


def test_row_seeds_are_distinct_nonnegative_and_stable_under_more_rows():
    seeds = row_seeds(0, 1000)
    assert len(set(seeds)) == 1000
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert row_seeds(0, 10) == seeds[:10]
    assert not set(seeds) & set(row_seeds(1, 1000))


@pytest.mark.parametrize("vocab", [1, 7, 513, 4096, 4999])  # one level; two levels, without and with padding
@pytest.mark.parametrize(
    "parameters",
    [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 50, "top_p": 0.9, "min_p": 0.01}],
)
def test_a_row_draws_the_same_bits_alone_and_in_any_batch(vocab, parameters):
    torch.manual_seed(vocab)
    logits = 4 * torch.randn(64, vocab)
    seeds, positions = torch.tensor(row_seeds(1, 64)), torch.arange(64) * 3
    batch = sample(logits, seeds, positions, 0.7, **parameters)
    order = torch.randperm(64)
    shuffled = sample(logits[order], seeds[order], positions[order], 0.7, **parameters)
    for got, expected in zip(shuffled, batch, strict=True):
        assert torch.equal(got, expected[order])
    for row in range(64):
        one = slice(row, row + 1)
        alone = sample(logits[one], seeds[one], positions[one], 0.7, **parameters)
        for got, expected in zip(alone, batch, strict=True):
            assert torch.equal(got[0], expected[row])


def test_a_row_of_a_strided_view_draws_the_same_bits():
    torch.manual_seed(0)
    wide = torch.randn(8, 1000)
    seeds, positions = torch.arange(8), torch.arange(8)
    view = sample(wide[:, 3:600], seeds, positions)
    copy = sample(wide[:, 3:600].contiguous(), seeds, positions)
    assert all(torch.equal(a, b) for a, b in zip(view, copy, strict=True))


def straightforward(row: list[float], temperature, top_k, top_p, min_p) -> list[float]:
    """The sampling distribution of one row, by the words of SPEC section 4, in Python floats."""
    scaled = [value / temperature for value in row]
    kept = set(range(len(row)))

    def normalised():
        total = sum(math.exp(scaled[i]) for i in kept)
        return {i: math.exp(scaled[i]) / total for i in kept}

    if top_k:
        limit = sorted(scaled, reverse=True)[min(top_k, len(row)) - 1]
        kept = {i for i in kept if scaled[i] >= limit}
    probs, mass, limit = normalised(), 0.0, 0.0
    for value in sorted(probs.values(), reverse=True):
        if mass >= top_p:
            break
        mass, limit = mass + value, value
    kept = {i for i in kept if probs[i] >= limit * (1 - 1e-12)}
    probs = normalised()
    kept = {i for i in kept if probs[i] >= min_p * max(probs.values())}
    probs = normalised()
    return [probs.get(i, 0.0) for i in range(len(row))]


def distribution(row: list[float], draws: int = 4000, **parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies of `draws` draws of one row, and the probability each token was reported with."""
    logits = torch.tensor(row).expand(draws, -1)
    out = sample(logits, torch.full((draws,), 11), torch.arange(draws), **parameters)
    reported = torch.zeros(len(row)).scatter(0, out.tokens, out.logprobs.exp())
    return torch.bincount(out.tokens, minlength=len(row)) / draws, reported


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(0, 1.0, 0.0), (4, 1.0, 0.0), (0, 0.75, 0.0), (0, 1.0, 0.2), (6, 0.85, 0.15), (100, 1.0, 0.0)],
)
def test_filters_give_the_distribution_of_the_plain_formula(temperature, top_k, top_p, min_p):
    torch.manual_seed(4)
    row = (2 * torch.randn(12)).tolist()
    expected = torch.tensor(straightforward(row, temperature, top_k, top_p, min_p))
    seen, reported = distribution(row, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert not seen[expected == 0].any(), "a dropped token was drawn"
    torch.testing.assert_close(reported[seen > 0], expected[seen > 0], rtol=1e-5, atol=0)
    kept = expected > 0
    chi_square = float((4000 * (seen - expected)[kept] ** 2 / expected[kept]).sum())
    assert chi_square < 40  # at most 11 degrees of freedom: p < 1e-4


def test_large_vocabularies_are_drawn_by_their_probabilities():
    torch.manual_seed(0)
    row = torch.full((5000,), -30.0)
    hot = torch.tensor([0, 255, 256, 2500, 4999])  # both ends of scan blocks, and of the padded last one
    row[hot] = torch.tensor([0.0, 1.0, 0.5, -0.5, 0.2])
    seen, _ = distribution(row.tolist())
    expected = row[hot].softmax(0)
    assert abs(float(seen[hot].sum()) - 1) < 1e-6
    assert float((4000 * (seen[hot] - expected) ** 2 / expected).sum()) < 24  # 4 degrees: p < 1e-4


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [({"top_k": 2}, {0, 1, 2, 3}), ({"top_p": 0.3}, {0, 1, 2, 3}), ({"min_p": 1.0}, {0, 1, 2, 3})],
)
def test_ties_at_a_threshold_are_all_kept(parameters, kept):
    seen, _ = distribution([2.0, 2.0, 2.0, 2.0, 1.0, 0.0], temperature=1.0, **parameters)
    assert set(seen.nonzero()[:, 0].tolist()) == kept


def test_top_p_renormalises_what_top_k_left():
    # Full softmax: .5 .25 .125 ...; of the two that top-k leaves the first holds 2/3, so top_p=0.6 drops the
    # second. On the full softmax the first holds only 1/2 and both would stay.
    row = [math.log(p) for p in (0.5, 0.25, 0.125, 0.0625, 0.0625)]
    seen, _ = distribution(row, temperature=1.0, top_k=2, top_p=0.6)
    assert seen[0] == 1


def test_temperature_zero_is_argmax_with_the_lowest_id_on_ties():
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    out = sample(logits, torch.tensor([1, 2]), torch.tensor([0, 0]), temperature=0.0)
    assert out.tokens.tolist() == [1, 0]
    assert out.logprobs.tolist() == [0.0, 0.0]
    torch.testing.assert_close(out.full_logprobs, logits.log_softmax(-1)[[0, 1], [1, 0]])


def test_full_logprobs_ignore_the_filters_and_keep_the_temperature():
    torch.manual_seed(0)
    logits = torch.randn(32, 50)
    out = sample(logits, torch.arange(32), torch.zeros(32, dtype=torch.int64), 0.5, top_k=3)
    expected = (logits / 0.5).log_softmax(-1).gather(1, out.tokens[:, None])[:, 0]
    torch.testing.assert_close(out.full_logprobs, expected)
    assert (out.logprobs > out.full_logprobs).all()


def test_masked_tokens_are_never_drawn_and_leave_full_logprobs_alone():
    torch.manual_seed(0)
    unmasked = torch.randn(500, 6)
    logits = unmasked.clone()
    logits[:, 2] = -INF
    out = draw(logits, torch.rand(500, dtype=torch.float64), Sampling(temperature=1.0), unmasked)
    assert not (out.tokens == 2).any()
    expected = unmasked.log_softmax(-1).gather(1, out.tokens[:, None])[:, 0]
    torch.testing.assert_close(out.full_logprobs, expected)
    torch.testing.assert_close(out.logprobs, logits.log_softmax(-1).gather(1, out.tokens[:, None])[:, 0])


@pytest.mark.parametrize("vocab", [6, 5000])
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_a_row_with_one_finite_logit_draws_it_whatever_the_uniform(vocab, uniform):
    logits = torch.full((vocab, vocab), -INF).fill_diagonal_(0.0)[-300:]
    out = draw(logits, torch.full((len(logits),), uniform, dtype=torch.float64), Sampling(temperature=0.3))
    assert torch.equal(out.tokens, torch.arange(vocab)[-300:])
    assert not out.logprobs.any()


@pytest.mark.parametrize("vocab", [5, 5000])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_a_broken_row_reports_nan_a_token_in_range_and_leaves_the_others_alone(vocab, temperature, bad):
    torch.manual_seed(0)
    logits = torch.randn(3, vocab)
    seeds, positions = torch.arange(3), torch.arange(3)
    expected = sample(logits, seeds, positions, temperature)
    logits[1, vocab // 2] = bad
    out = sample(logits, seeds, positions, temperature)
    assert out.logprobs.isnan().tolist() == [False, True, False]
    assert 0 <= int(out.tokens[1]) < vocab
    for got, want in zip(out, expected, strict=True):
        assert torch.equal(got[[0, 2]], want[[0, 2]])
    assert sample(torch.full((1, vocab), -INF), seeds[:1], positions[:1]).logprobs.isnan().all()


def test_bfloat16_logits_draw_like_their_float32_values():
    logits = torch.randn(16, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    arguments = torch.arange(16), torch.arange(16)
    assert all(
        torch.equal(a, b)
        for a, b in zip(sample(logits, *arguments), sample(logits.float(), *arguments), strict=True)
    )


def test_sampling_leaves_the_logits_as_they_were():
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    sample(logits, torch.arange(4), torch.arange(4), 0.5, top_k=4, top_p=0.5, min_p=0.1)
    assert torch.equal(logits, before)


def test_an_empty_batch_gives_an_empty_sample():
    empty = torch.empty(0, dtype=torch.int64)
    assert [len(part) for part in sample(torch.empty(0, 5), empty, empty, top_p=0.5)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("temperature", -0.1, ValueError),
        ("temperature", INF, ValueError),
        ("temperature", float("nan"), ValueError),
        ("temperature", "hot", TypeError),
        ("top_k", -1, ValueError),
        ("top_k", 1.5, TypeError),
        ("top_p", 0.0, ValueError),
        ("top_p", 1.01, ValueError),
        ("min_p", -0.1, ValueError),
        ("min_p", 1.1, ValueError),
        ("seed", -1, ValueError),
        ("seed", 2**63, ValueError),
        ("seed", True, TypeError),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(field, value, error):
    with pytest.raises(error, match=field):
        Sampling(**{field: value})


def test_shapes_that_do_not_fit_are_refused():
    ids = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="logits"):
        sample(torch.zeros(4), ids, ids)
    with pytest.raises(ValueError, match=r"seeds: expected \[3\]"):
        sample(torch.zeros(3, 4), ids, ids)
    with pytest.raises(ValueError, match="positions"):
        sample(torch.zeros(2, 4), ids, ids.float())
