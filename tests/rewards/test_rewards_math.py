"""Which final answers count as right."""

import json
import logging
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from elastic.data import load_problems
from elastic.rewards import graded_response, math, math_reward, solution_text
from elastic.rewards.math import equal_answers, final_answer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "math"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is absent")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"so 4</think>The answer is \boxed{4}.", 1.0),
        (r"\boxed{4} it is", 0.0),  # thinking never closed
        (r"\boxed{4}</think>hmm", 0.0),  # the thought's box is no answer
        (r"\boxed{5}</think>\boxed{4}", 1.0),
        (r"a</think>I wrote </think> again: \boxed{4}", 1.0),  # the marker repeated
        (r"a</think>\boxed{3}, no: \boxed{4}", 1.0),  # the last box
        (r"a</think>\boxed{4}, no: \boxed{3}", 0.0),
        (r"a</think>the sum is 4", 0.0),  # a number is no stated answer
        (r"a</think>\boxed{4", 0.0),  # cut in the box
        (r"a</think>\boxed{4} and \boxed{", 1.0),  # cut in a later box
        (r"a</think>Final Answer: 4", 1.0),
        ("a</think>so the **answer is** 4.\n", 1.0),
        ("a</think>so the answer is 4.\nBye 5", 1.0),
        ("a</think>the answer is $4$ apples", 1.0),
        ("a</think>#### 4<|im_end|>", 1.0),
        ("a</think>", 0.0),
        ("", 0.0),
    ],
)
def test_only_the_answer_behind_the_first_end_marker_counts(response, expected):
    assert math_reward(response, "4") == expected


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        ("060", "60"),
        ("(051)", "51"),
        (r"\textbf{(081)}", "81"),
        ("1,024", "1024"),
        ("1{,}024", "1024"),
        ("2.50", "2.5"),
        (".35625", "0.35625"),
        ("1/2", "0.5"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"50\%", "50"),
        (r"90^\circ", "90"),
        (r"\$18", "18"),
        (r"p-q", "p - q"),
    ],
)
def test_same_answers_written_differently_are_equal_without_a_library(stated, answer, monkeypatch):
    monkeypatch.setattr(math, "_same_to_math_verify", lambda stated, answer: False)
    assert equal_answers(stated, answer)


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        ("6", "60"),
        ("1/3", "0.33"),
        ("-4", "4"),
        ("(1,2)", "12"),
        ("", ""),
        ("1/0", "1"),
        ("x", "y"),
        ("9" * 5000, "9"),
    ],
)
def test_different_answers_are_different(stated, answer):
    assert not equal_answers(stated, answer)


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        (r"\frac12", "0.5"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"5-6i", r"-6i+5"),
        (r"x=5", "5"),
        (r"288\pi", r"\pi \cdot 288"),
    ],
)
def test_equal_expressions_are_found_by_math_verify(stated, answer):
    assert equal_answers(stated, answer)


def test_expressions_compare_in_a_thread_where_no_signal_can_be_set():
    result = []
    thread = threading.Thread(
        target=lambda: result.append(equal_answers(r"\frac{6}{4}", r"\sqrt{\frac{9}{4}}"))
    )
    thread.start()
    thread.join()
    assert result == [True]


def test_missing_math_verify_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(math, "find_spec", lambda name: None)
    math._math_verify_installed.cache_clear()
    math._same_to_math_verify.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not equal_answers(r"\sqrt{8}", r"2\sqrt{2}")
            assert not equal_answers(r"\sqrt{9}", "x")
    finally:
        math._math_verify_installed.cache_clear()
        math._same_to_math_verify.cache_clear()
    assert len(caplog.records) == 1
    assert "math-verify is not installed" in caplog.text


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed 5", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{}", None),
        ("Answer: **12**", "12"),
        ("nothing", None),
    ],
)
def test_final_answer_is_extracted(solution, answer):
    assert final_answer(solution) == answer


def test_other_markers_and_none():
    assert math_reward(r"a[/THINK]\boxed{4}", "4", end_marker="[/THINK]") == 1.0
    assert math_reward(r"a[/THINK]\boxed{4}", "4") == 0.0
    assert math_reward(r"\boxed{4}", "4", end_marker=None) == 1.0
    with pytest.raises(ValueError, match="end_marker must not be empty"):
        solution_text("x", "")


def test_graded_response_is_the_solution_alone():
    assert graded_response(" 4") == "</think> 4"
    assert graded_response("") == "</think>"
    assert graded_response(None) == ""


@needs_shared
@pytest.mark.parametrize("name", ["aime", "aime_train"])
def test_reference_solutions_of_real_items_get_their_reward(name):
    items = json.loads((SHARED / f"{name}.json").read_text())
    boxed = [item for item in items if "\\boxed" in item["solution"] or "\\fbox" in item["solution"]]
    assert len(boxed) > 0.8 * len(items)
    wrong = [i["answer"] for i in boxed if math_reward("</think>" + i["solution"], i["answer"]) != 1.0]
    assert wrong == []


@needs_shared
def test_gsm8k_solutions_get_their_reward():
    items = json.loads((SHARED / "gsm8k.json").read_text())
    problems = load_problems(SHARED / "gsm8k.json")
    assert all(
        math_reward("</think>" + i["solution"], p.answer) == 1.0 for i, p in zip(items, problems, strict=True)
    )


@needs_shared
@pytest.mark.parametrize("name", ["aime", "amc", "math"])
def test_each_answer_equals_itself_and_not_its_neighbour(name):
    answers = [problem.answer for problem in load_problems(SHARED / f"{name}.json")][:150]
    assert all(math_reward(f"</think>\\boxed{{{answer}}}", answer) == 1.0 for answer in answers)
    pairs = [(a, b) for a, b in pairwise(answers) if a.lstrip("x=") != b.lstrip("x=")]
    assert [(a, b) for a, b in pairs if math_reward(f"</think>\\boxed{{{a}}}", b) != 0.0] == []
