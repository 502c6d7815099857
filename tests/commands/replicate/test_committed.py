"""The committed results, and the pages that show them."""

import json
from pathlib import Path

import pytest

from elastic.commands.replicate.claims.rule import Comparison
from elastic.commands.replicate.report import fill, report

ROOT = Path(__file__).parents[3]
RESULT = ROOT / "results" / "replicate.json"
PAGE = ROOT / "docs" / "replicate.md"

pytestmark = pytest.mark.skipif(not RESULT.is_file(), reason="results/replicate.json is not there yet")


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads(RESULT.read_text())


def test_the_page_shows_the_committed_results(result: dict) -> None:
    page = PAGE.read_text()
    assert page == fill(page, result, "../results/replicate.png")


def test_the_report_beside_them_is_theirs(result: dict) -> None:
    assert (ROOT / "results" / "replicate.md").read_text() == report(result)


def test_every_outcome_follows_from_its_comparisons_by_the_rule(result: dict) -> None:
    for claim in result["claims"]:
        found = [Comparison(**item | {"seeds": tuple(item["seeds"])}).holds for item in claim["comparisons"]]
        expected = False if False in found else True if found and all(found) else None
        assert claim["holds"] is expected, claim["name"]
        if claim["comparisons"]:
            worst = min(claim["comparisons"], key=lambda item: item["low"] - item["margin"])
            assert (claim["low"], claim["high"]) == (worst["low"], worst["high"])


def test_rows_are_inside_their_intervals_and_within_their_seeds(result: dict) -> None:
    for row in result["rows"]:
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert min(row["accuracy_by_seed"]) - 1e-9 <= row["accuracy"] <= max(row["accuracy_by_seed"]) + 1e-9
