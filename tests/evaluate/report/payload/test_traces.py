"""Answers of several runs to the same problems, side by side."""

import pytest

from elastic.data import Problem
from elastic.evaluate import Sample
from elastic.evaluate.report.payload import Answer, ReportRun, payload
from tests.evaluate.report.payload.runs import answers_to, run_of, texts, told
from tests.evaluate.statistics.samples import answer

LOOSE, TIGHT, NONE = (40, 24, None), (8, 24, None), (None, None, None)
BASE = [*answers_to("pq", "separate", TIGHT, correct=0.0), *answers_to("pq", "separate", NONE)]
TRAINED = [*answers_to("pq", "e1", TIGHT), *answers_to("pq", "e1", NONE)]


def of(*runs: ReportRun, **settings: int) -> dict:
    return payload(runs, title="made up", **settings)


def test_base_and_trained_answers_to_a_problem_stand_side_by_side_at_each_budget() -> None:
    traces = of(run_of("base", BASE), run_of("trained", TRAINED))["traces"]
    assert [arm["label"] for arm in traces["arms"]] == [
        "separate budgeting, untrained (base)",
        "E1: trained under budgets (trained)",
    ]
    assert [budget["label"] for budget in traces["budgets"]] == ["8 + 24", "none"]
    assert [problem["id"] for problem in traces["problems"]] == ["p", "q"]
    problem = traces["problems"][0]
    assert (problem["prompt"], problem["answer"]) == ("p ?", "right p")
    base, trained = (problem["answers"][arm["id"]] for arm in traces["arms"])
    assert [base["8 + 24"]["correct"], trained["8 + 24"]["correct"]] == [0, 1]
    assert base["none"] == {
        "correct": 1,
        "segments": [["thinking", "we have 7 ."], ["forced", "</think>"], ["solution", "answer is 7"]],
        "tokens": 10,
        "thinking_tokens": 4,
        "solution_tokens": 5,
        "cut": False,
        "finish_reason": "stop",
        "measures": {
            "rechecks": 0,
            "repetition": 0.0,
            "solution_share": 0.556,
            "steps_in_solution": None,
        },
    }


def test_a_single_run_needs_no_name_behind_its_methods() -> None:
    training = ReportRun("training", "training")
    arms = of(run_of("base", BASE), training)["traces"]["arms"]
    assert [arm["label"] for arm in arms] == ["separate budgeting, untrained"]


def test_one_cap_stands_with_the_budgets_that_add_up_to_it() -> None:
    capped = [*answers_to("pq", "vanilla", (None, None, 32)), *answers_to("pq", "vanilla", (None, None, 50))]
    traces = of(run_of("base", BASE), run_of("other", capped))["traces"]
    assert [budget["label"] for budget in traces["budgets"]] == ["8 + 24", "c = 50", "none"]
    assert {"8 + 24", "c = 50"} == set(traces["problems"][0]["answers"]["other/vanilla"])


def test_equal_ids_with_other_prompts_are_other_problems() -> None:
    other = run_of("other", TRAINED, problems={("set", "p"): Problem("another ?", "x")})
    problems = of(run_of("base", BASE), other)["traces"]["problems"]
    assert [(problem["prompt"], len(problem["answers"])) for problem in problems] == [
        ("q ?", 2),  # first, as the arms differ; without a prompt of its own the other run's counts
        *(("p ?", 1), ("another ?", 1)),
    ]


def test_unknown_prompts_are_said() -> None:
    notes = of(run_of("base", BASE, problems={}))["notes"]
    assert notes == ["Some prompts are not known: their runs did not keep them."]


def test_of_several_answers_the_first_is_shown_and_all_count_in_the_measures() -> None:
    several = [
        told(answer("p", 1.0 - number, number=number, thinking=4 + 2 * number), "so", "7")
        for number in (0, 1)
    ]
    record = of(run_of("base", several))
    (problem,) = record["traces"]["problems"]
    assert problem["answers"]["base/e1"]["8 + 8"]["correct"] == 1
    assert record["notes"] == ["Of several answers to a problem they show the first."]
    (row,) = record["reasoning"]
    assert (row["count"], row["thinking_tokens"], row["solution_share"]) == (
        2,
        5.0,
        pytest.approx(0.505, abs=1e-3),
    )


def test_measures_are_means_by_arm_and_budget() -> None:
    samples = [
        told(answer("p", budget=TIGHT), "wait 7 = 7", "= 7"),
        told(answer("q", budget=TIGHT), "7", "answer is 7"),
        *answers_to("pq", "e1", NONE),
    ]
    tight, free = of(run_of("base", samples))["reasoning"]
    assert (tight["budget"], free["budget"]) == ("8 + 24", "none")
    assert (tight["rechecks"], free["rechecks"]) == (0.5, 0)
    assert (tight["steps_in_solution"], free["steps_in_solution"]) == (0.5, None)


def test_sets_have_measures_of_their_own() -> None:
    samples = [texts(answer("p", data=name, thinking=4 * n)) for n, name in enumerate("ba")]
    rows = of(run_of("base", samples))["reasoning"]
    assert [(row["data"], row["thinking_tokens"]) for row in rows] == [("b", 0), ("a", 4)]


def rollout(step: int, correct: float) -> Answer:
    name = f"step {step}"
    sample = answer(f"p{step}", correct, data=name, method="run", budget=NONE, thinking=step)
    return Answer(told(sample, "we have 7", "answer is 7"), step)


def test_rollouts_of_a_training_are_in_the_traces_and_their_measures_by_step() -> None:
    run = ReportRun("run", "training", answers=lambda: [rollout(1, 0.0), rollout(9, 1.0)])
    record = of(run)
    assert [budget["label"] for budget in record["traces"]["budgets"]] == ["in training"]
    assert [problem["data"] for problem in record["traces"]["problems"]] == ["step 1", "step 9"]
    assert [(row["budget"], row["thinking_tokens"]) for row in record["reasoning"]] == [
        *(("step 1", 1), ("step 9", 9))
    ]
    assert record["lengths"] == record["curves"] == []


def test_answers_without_texts_count_in_lengths_and_are_no_traces() -> None:
    bare: list[Sample] = [answer("p", budget=TIGHT)]
    record = of(run_of("base", bare))
    assert record["traces"] == {"arms": [], "budgets": [], "problems": []}
    assert record["reasoning"] == []
    assert len(record["lengths"]) == 1
