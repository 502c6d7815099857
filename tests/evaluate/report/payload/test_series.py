"""Curves, table and lengths of runs made up by hand."""

from dataclasses import replace

import pytest

from elastic.evaluate import Row
from elastic.evaluate.report.payload.series import curves, label_of, lengths, table
from elastic.evaluate.statistics import bootstrap_mean
from tests.evaluate.report.payload.runs import answers_to, run_of
from tests.evaluate.statistics.samples import answer

LOOSE, TIGHT = (40, 24, None), (8, 24, None)


def test_a_curve_is_a_method_s_points_by_tokens_with_their_intervals(rows: list[Row]) -> None:
    run = run_of("base", answers_to("ab", "separate", LOOSE), rows=rows)
    found = curves([run])
    assert [curve["method"] for curve in found] == ["vanilla", "separate", "capped", "e1"]
    assert found[0]["label"] == "vanilla: one cap, cut hard"
    point = found[3]["points"][1]
    assert point == {
        "tokens": 38.0,
        "accuracy": 0.8,
        "low": 0.75,
        "high": 0.85,
        "thinking": 40,
        "solution": 16,
        "total": None,
        "budget": "40 + 16",
    }
    tokens = [point["tokens"] for point in found[3]["points"]]
    assert tokens == sorted(tokens)


def test_labels_are_the_run_s_own_before_those_of_the_methods() -> None:
    assert label_of("e1", {}) == "E1: trained under budgets"
    assert label_of("e1", {"e1": "mine"}) == "mine"
    assert label_of("unheard of", {}) == "unheard of"


def test_the_table_has_raw_values_under_typed_columns(rows: list[Row]) -> None:
    found = table([run_of("base", answers_to("ab", "separate", LOOSE), rows=rows)])
    kinds = {column["title"]: column["kind"] for column in found["columns"]}
    assert kinds["accuracy"] == kinds["95 % from"] == kinds["to"] == kinds["right if cut"] == "share"
    assert kinds["tokens"] == kinds["thinking"] == "tokens"
    assert kinds["method"] == kinds["budget t + s"] == "text"
    assert all(len(line) == len(found["columns"]) for line in found["rows"])
    line = dict(zip(kinds, found["rows"][0], strict=True))
    assert line["budget t + s"] == "c = 16"
    assert (line["accuracy"], line["95 % from"]) == (0.06, pytest.approx(0.01))


def test_several_runs_stand_in_one_table_with_a_column_for_the_run(rows: list[Row]) -> None:
    samples = answers_to("ab", "separate", LOOSE)
    leaking = [replace(row, leakage=1.5) for row in rows]
    found = table([run_of("base", samples, rows=rows), run_of("trained", samples, rows=leaking)])
    assert found["columns"][0]["title"] == "run"
    assert [line[0] for line in found["rows"]] == ["base"] * len(rows) + ["trained"] * len(rows)
    leakage = [column["title"] for column in found["columns"]].index("leakage")
    assert {line[leakage] for line in found["rows"][: len(rows)]} == {None}


def test_without_rows_there_is_no_table() -> None:
    assert table([run_of("base", answers_to("ab", "e1", LOOSE), rows=[])]) == {"columns": [], "rows": []}


def test_lengths_are_sampled_tokens_against_the_sum_that_was_asked_or_allowed() -> None:
    samples = [
        answer("p", method="l1_exact", budget=(None, None, 64), tokens=70, thinking=50, solution=10),
        answer("q", method="l1_exact", budget=(None, None, 64), tokens=90, thinking=70, solution=10),
        answer("p", budget=TIGHT, thinking=8, solution=4),
        answer("p", budget=(None, None, None), thinking=99, solution=9),  # nothing was asked for
    ]
    l1, e1 = lengths(run_of("base", samples), samples)
    low, high = bootstrap_mean([60, 80], bounds=None).interval
    assert l1["points"] == [{"asked": 64, "used": 70, "low": low, "high": high, "count": 2}]
    assert [(point["asked"], point["used"]) for point in e1["points"]] == [(32, 12)]
    assert e1["label"] == "E1: trained under budgets"


def test_sets_have_lengths_of_their_own() -> None:
    samples = [answer("p", data=name, budget=TIGHT, thinking=4 * n) for n, name in enumerate("ab")]
    found = lengths(run_of("base", samples), samples)
    assert [(line["data"], line["points"][0]["used"]) for line in found] == [("a", 5), ("b", 9)]


def test_lines_that_a_run_does_not_draw_are_marked(rows: list[Row]) -> None:
    samples = answers_to("ab", "e1", LOOSE)
    found = curves([run_of("base", samples, rows=rows, drawn=("e1",))])
    assert [curve["hidden"] for curve in found] == [True, True, True, False]
    assert not any(curve["hidden"] for curve in curves([run_of("base", samples, rows=rows)]))
