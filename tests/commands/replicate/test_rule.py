"""When a claim holds, does not hold or stays open: intervals and samples made up by hand."""

import pytest

from elastic.commands.replicate.claims.rule import Difference, decide
from elastic.evaluate.statistics import Estimate


def difference(
    value: float,
    half: float,
    seeds: tuple[float, ...] | None = None,
    *,
    margin: float = 0.0,
    at: str = "t = 8",
) -> Difference:
    return Difference(at, Estimate(value, value - half, value + half), seeds or (value,) * 3, margin)


def test_a_claim_holds_where_every_interval_and_every_seed_is_above() -> None:
    claim = decide("c", "a is above b", [difference(0.1, 0.05), difference(0.2, 0.1)])
    assert claim.holds is True
    assert claim.outcome == "holds"


def test_one_interval_that_reaches_zero_leaves_a_claim_open() -> None:
    assert decide("c", "a is above b", [difference(0.1, 0.05), difference(0.05, 0.06)]).outcome == "open"


def test_one_seed_on_the_other_side_leaves_a_claim_open() -> None:
    assert decide("c", "a is above b", [difference(0.1, 0.05, (0.2, 0.15, -0.05))]).outcome == "open"
    assert decide("c", "a is above b", [difference(-0.1, 0.05, (-0.2, -0.15, 0.05))]).outcome == "open"


def test_one_interval_below_refutes_a_claim_whatever_the_others_say() -> None:
    claim = decide("c", "a is above b", [difference(0.3, 0.05), difference(-0.1, 0.05)])
    assert claim.holds is False
    assert claim.outcome == "does not hold"


def test_several_comparisons_widen_their_intervals() -> None:
    # 0.1 +- 0.09 is above 0 alone; of two it is 0.1 +- 0.09 x 2.2414 / 1.9600 = 0.1 +- 0.1029.
    assert decide("c", "a is above b", [difference(0.1, 0.09)]).holds is True
    claim = decide("c", "a is above b", [difference(0.1, 0.09), difference(0.5, 0.1)])
    assert claim.holds is None
    assert claim.comparisons[0].low == pytest.approx(0.1 - 0.1029, abs=1e-4)
    assert claim.comparisons[0].high == pytest.approx(0.1 + 0.1029, abs=1e-4)


def test_close_to_needs_the_interval_above_the_margin() -> None:
    assert decide("c", "close", [difference(-0.01, 0.005, margin=-0.02)]).holds is True
    assert decide("c", "close", [difference(-0.01, 0.015, margin=-0.02)]).holds is None
    assert decide("c", "close", [difference(-0.05, 0.005, margin=-0.02)]).holds is False


def test_a_claim_without_a_comparison_is_open_and_says_why() -> None:
    claim = decide("c", "a is above b", [], "nothing to compare")
    assert (claim.holds, claim.note) == (None, "nothing to compare")
    assert claim.to_dict()["low"] is None
    assert claim.to_dict()["seeds"] == 0


def test_low_and_high_are_of_the_comparison_that_is_worst_for_the_claim() -> None:
    record = decide(
        "c", "a is above b", [difference(0.3, 0.01, at="x"), difference(0.2, 0.01, at="y")]
    ).to_dict()
    assert record["low"] == pytest.approx(0.2 - 0.01 * 2.2414 / 1.96, abs=1e-4)
    assert record["high"] < 0.3
    assert record["seeds"] == 3
    assert [item["at"] for item in record["comparisons"]] == ["x", "y"]
