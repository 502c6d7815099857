"""How often tokens come: chi-square against the exact distribution, and tokens that must never come."""

import pytest
import torch

from elastic import ops
from elastic.reference.sampling import distribution
from tests.sampling.draws import DTYPES

INF = float("inf")
DRAWS = 20_000


def frequencies(row: torch.Tensor, **settings) -> torch.Tensor:
    """Counts of DRAWS draws of one row at successive positions: [V]."""
    seeds = torch.full((DRAWS,), 11)
    out = ops.sample(row.expand(DRAWS, -1), seeds, torch.arange(DRAWS), **settings)
    return torch.bincount(out.tokens, minlength=len(row))


def expected(row: torch.Tensor, **settings) -> torch.Tensor:
    """Exact probabilities: [V] float64."""
    mass = distribution(row.float(), settings.pop("temperature", 1.0), **settings).double()
    return mass / mass.sum()


def misfit(counts: torch.Tensor, probs: torch.Tensor) -> float:
    """Chi-square in standard deviations from its mean; cells of fewer than 5 draws are one cell."""
    wanted = probs * DRAWS
    large = wanted >= 5
    cells = torch.cat([counts[large].double(), counts[~large].sum()[None].double()])
    wanted = torch.cat([wanted[large], wanted[~large].sum()[None]])
    cells, wanted = cells[wanted > 0], wanted[wanted > 0]
    degrees = max(len(wanted) - 1, 1)
    chi_square = float(((cells - wanted) ** 2 / wanted).sum())
    return (chi_square - degrees) / (2 * degrees) ** 0.5


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"top_k": 6},
    {"top_p": 0.75},
    {"min_p": 0.1},
    {"temperature": 1.5, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_tokens_come_as_often_as_their_probability_says(dtype, settings):
    row = (2 * torch.randn(40, generator=torch.Generator().manual_seed(4))).to(dtype)
    counts, probs = frequencies(row, **settings), expected(row, **settings)
    assert not counts[probs == 0].any(), "a dropped token was drawn"
    assert misfit(counts, probs) < 5


@pytest.mark.parametrize(
    "wrong", [{"temperature": 1.1}, {"top_p": 0.97}, {"top_k": 20}, {"min_p": 0.02}], ids=str
)
def test_the_chi_square_sees_a_distribution_that_is_slightly_wrong(wrong):
    row = 2 * torch.randn(40, generator=torch.Generator().manual_seed(4))
    assert misfit(frequencies(row, **wrong), expected(row)) > 10


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.95}])
def test_likely_tokens_at_the_ends_of_tiles_come_as_often_as_they_should(settings):
    row = torch.full((5000,), -40.0)
    row[[0, 2047, 2048, 4095, 4096, 4999]] = torch.tensor([0.0, 1.0, 0.5, -0.5, 0.2, 0.7])
    assert misfit(frequencies(row, **settings), expected(row, **settings)) < 5


def test_a_flat_row_of_many_tokens_is_drawn_evenly():
    counts = frequencies(torch.zeros(10_000), top_p=0.999)
    assert misfit(counts.view(100, 100).sum(1), torch.full((100,), 0.01, dtype=torch.float64)) < 5
    assert misfit(counts.view(100, 100).sum(0), torch.full((100,), 0.01, dtype=torch.float64)) < 5


@pytest.mark.parametrize("settings", [*SETTINGS, {"temperature": 0.0}])
def test_tokens_of_probability_zero_are_never_drawn(settings):
    row = torch.randn(60, generator=torch.Generator().manual_seed(0))
    row[::3] = -INF
    row[1] = -1e30
    assert not frequencies(row, **settings)[[*range(0, 60, 3), 1]].any()
