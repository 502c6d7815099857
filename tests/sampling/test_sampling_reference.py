"""`elastic.reference.sampling`: generator and weights that the ops are held to, on their own."""

import math
from fractions import Fraction

import pytest
import torch

from elastic.reference.sampling import _fma, distribution, philox, row_random, weights
from elastic.sampling import Sampling, row_seeds

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


def test_a_random_number_is_the_first_two_philox_words():
    got = row_random(torch.tensor([0]), torch.tensor([0]))
    assert got.item() == (0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)


def test_seeds_and_positions_use_all_their_bits():
    seeds = torch.tensor([1, 1 + 2**32, 1 + 2**62, 1, 1])
    positions = torch.tensor([5, 5, 5, 6, 5 + 2**32])
    assert row_random(seeds, positions).unique().numel() == 5


def test_random_numbers_are_uniform_over_positions_and_over_seeds():
    along = row_random(torch.tensor(7), torch.arange(20_000))
    across = row_random(torch.tensor(row_seeds(3, 20_000)), torch.tensor(0))
    for values in (along / 2.0**53, across / 2.0**53):
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


def nearest_float(exact: Fraction) -> float:
    """The float32 nearest to a rational number, even on ties."""
    guess = torch.tensor(float(exact), dtype=torch.float32)
    inf = torch.tensor(INF)
    near = [guess, torch.nextafter(guess, inf), torch.nextafter(guess, -inf)]
    ranked = sorted(near, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(torch.int32)) & 1))
    return float(ranked[0])


def test_the_emulated_fma_rounds_once():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3000, generator=generator)
    for c in (1.0, -0.25, 0.00967151, 2.0**-30):
        exact = [Fraction(x) * Fraction(y) + Fraction(c) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert _fma(a, b, c).tolist() == [nearest_float(value) for value in exact]
    # A case that float64 alone rounds twice: 1 + 2^-24 + 2^-60 lies above the tie, float64 drops the 2^-60.
    a, b = torch.tensor([1 + 2.0**-12]), torch.tensor([2.0**-24 * (1 + 2.0**-12)])
    c = 1 - 2.0**-23 * 2.0**-12
    assert _fma(a, b, c).item() == nearest_float(Fraction(a.item()) * Fraction(b.item()) + Fraction(c))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_weights_are_exponentials_of_forty_bits(temperature):
    logits = torch.linspace(-20, 3, 5001)
    exact = ((logits.double() - 3) / temperature).exp() * 2.0**40
    got = weights(logits, temperature)
    assert got[-1] == 2**40
    # The polynomial and its rounding, three roundings on the way to (x - max) / t, and the floor.
    error = (got - exact).abs() - 1
    assert (error <= exact * (2e-7 + 3 * 2.0**-24 * (3 - logits.double()) / temperature)).all()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [8, 4, 4, 2, 1, 1]),
        ({"top_k": 1}, [8, 0, 0, 0, 0, 0]),
        ({"top_k": 2}, [8, 4, 4, 0, 0, 0]),  # ties stay
        ({"top_k": 6}, [8, 4, 4, 2, 1, 1]),
        ({"top_p": 0.4}, [8, 0, 0, 0, 0, 0]),  # exactly reached by the first
        ({"top_p": 0.401}, [8, 4, 4, 0, 0, 0]),
        ({"top_p": 0.8}, [8, 4, 4, 0, 0, 0]),
        ({"top_p": 0.9}, [8, 4, 4, 2, 0, 0]),
        ({"top_p": 0.95}, [8, 4, 4, 2, 1, 1]),
        ({"min_p": 0.5}, [8, 4, 4, 0, 0, 0]),
        ({"min_p": 0.51}, [8, 0, 0, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.5}, [8, 0, 0, 0, 0, 0]),  # half of what top-k left, not of everything
        ({"top_k": 3, "top_p": 0.6, "min_p": 0.6}, [8, 0, 0, 0, 0, 0]),
    ],
)
def test_filters_keep_what_the_definition_says(filters, expected):
    # Powers of two of the likeliest: the weights are exact.
    logits = torch.tensor([0, -1, -1, -2, -3, -3], dtype=torch.float32)
    got = distribution(logits, 1 / math.log(2), **filters) / 2.0**37
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=0)


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
        ("seed", 1.0, TypeError),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(field, value, error):
    with pytest.raises(error, match=field):
        Sampling(**{field: value})
