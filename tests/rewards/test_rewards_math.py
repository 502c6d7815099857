"""Which final answers count as right."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from elastic.data import load
from elastic.rewards import graded_response, math_reward, solution_text
from elastic.rewards.equal import equal_answers
from elastic.rewards.stated import final_answer

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
    ("solution", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{7\\}", r"7\\"),
        (r"\boxed{\begin{pmatrix}1\\{-2}\end{pmatrix}}", r"\begin{pmatrix}1\\{-2}\end{pmatrix}"),
        (r"\boxed{\{1,2\}} and }", r"\{1,2\}"),
        (r"{ \boxed{5}", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed 5", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{}", None),
        (r"\boxed{7}, as \boxed{} asks", "7"),
        (r"\boxed{7} \boxed{ } \boxed{\,} \boxed{\text{ }} \boxed{$ $}", "7"),
        (r"\boxed{} so the answer is 7", "7"),
        ("Answer: **12**", "12"),
        ("Answer: 12\nAnswer: **", "12"),
        ("nothing", None),
        ("", None),
    ],
)
def test_final_answer_is_extracted(solution, answer):
    assert final_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"x is \boxed{1} or \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{}, \boxed{2}, again \boxed{1}", "1, 2"),
        (r"\boxed{7}", "7"),
        ("the answer is 7", "7"),
    ],
)
def test_all_boxes_make_a_list_of_the_different_ones(solution, answer):
    assert final_answer(solution, boxes="all") == answer


def test_a_list_of_boxes_is_right_only_as_a_whole():
    solution = r"</think>x is \boxed{1} or \boxed{2}"
    assert math_reward(solution, "1,2", boxes="all") == 1.0
    assert math_reward(solution, "2", boxes="all") == 0.0
    assert math_reward(solution, "2") == 1.0


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("<answer> 12 </answer>", "12"),
        (r"<answer>It is \boxed{12}.</answer> not \boxed{13}", "12"),
        ("<answer>11</answer> no: <answer>12</answer><answer> </answer>", "12"),
        ("<answer>11<answer>12</answer>", "12"),
        (r"\boxed{12}", "12"),
        (r"\boxed{12} <answer>cut", "12"),
        ("nothing", None),
    ],
)
def test_answer_tags_go_first_where_they_are_asked_for(solution, answer):
    assert final_answer(solution, answer_tags=True) == answer


def test_answer_tags_are_text_otherwise():
    assert math_reward(r"</think>\boxed{12} <answer>13</answer>", "12") == 1.0
    assert math_reward(r"</think>\boxed{12} <answer>13</answer>", "13", answer_tags=True) == 1.0


def test_unknown_boxes_are_refused():
    with pytest.raises(ValueError, match="boxes: expected 'last' or 'all', got 'first'"):
        math_reward("</think>5", "5", boxes="first")


@pytest.mark.parametrize("answer", [r"(10^{9})!", r"9^{9^{9^{9}}}"])
def test_an_answer_that_no_computer_works_out_is_wrong(answer, two):
    assert math_reward(f"</think>\\boxed{{{answer}}}", "5") == 0.0


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
    problems = load(SHARED / "gsm8k.json")
    assert all(
        math_reward("</think>" + i["solution"], p.answer) == 1.0 for i, p in zip(items, problems, strict=True)
    )


def rephrased(answer):
    """Ways to write an answer that say the same."""
    yield f"${answer}$."
    yield answer.replace(" ", "  ").replace(r"\frac{", r"\dfrac{")
    yield answer.replace("-", "−").replace(r"\pi", "π").replace(r"^\circ", "°").replace(r"\infty", "∞")
    if re.fullmatch(r"-?\d+", answer):
        yield from (f"{answer}.0", f"{int(answer):,}", f"x = {answer}", rf"\text{{{answer}}}", f"{answer} m")
        yield from (rf"\frac{{{int(answer) * 3}}}{{3}}", f"({answer})", f"+{answer}".replace("+-", "-"))
    if re.fullmatch(r"\\frac\{\d+\}\{\d+\}", answer):
        yield re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", answer)


@needs_shared
@pytest.mark.parametrize("name", ["aime", "aime_train", "amc", "gsm8k", "math"])
def test_each_answer_equals_itself_however_it_is_written(name):
    answers = {problem.answer for problem in load(SHARED / f"{name}.json")}
    pairs = [(stated, answer) for answer in sorted(answers) for stated in rephrased(answer)]
    assert [pair for pair in pairs if math_reward(f"</think>\\boxed{{{pair[0]}}}", pair[1]) != 1.0] == []


@needs_shared
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("aime", []),
        ("amc", []),
        ("gsm8k", [("14,000", "14000"), ("5,600", "5600")]),
        (
            "math",
            [
                *(("-2,1", "1,-2"), (r"\frac14", r"\frac{1}{4}"), (r"2 \sqrt{5}", r"2\sqrt{5}")),
                *(("10080", r"10,\!080"), ("15", r"15\mbox{ cm}^2"), ("36", r"\$36"), ("5", "x=5")),
                *((f"{angle}", rf"{angle}^\circ") for angle in (30, 36, 90, 120)),
            ],
        ),
    ],
)
def test_no_two_answers_of_a_set_are_equal_but_for_their_writing(name, same):
    answers = sorted({problem.answer for problem in load(SHARED / f"{name}.json")})
    hard = [answer for answer in answers if not re.fullmatch(r"-?\d+", answer)]
    # Sorted answers look like their neighbours; what is no plain number is compared with many of them.
    pairs = [*pairwise(answers), *((a, b) for at, a in enumerate(hard) for b in hard[at + 1 : at + 20])]
    pairs += [(a, b) for a in hard for b in ("0", "1", "2")]
    equal = {frozenset((a, b)) for a, b in pairs if equal_answers(a, b) or equal_answers(b, a)}
    assert equal <= {frozenset(pair) for pair in same}
    assert all(equal_answers(*pair) for pair in same)
