"""The embedded task: its problems are checked by arithmetic that knows nothing of how they were made."""

import re
from itertools import combinations

import pytest

from elastic.data.sums import MAX_OPERATIONS, MIN_OPERATIONS, SPLITS, Sum, problems
from elastic.models import tiny


def evaluated(prompt: str) -> int:
    """The sum in a prompt, by Python's own arithmetic."""
    match = re.fullmatch(r"<bos> a (\d)((?: [b-i] [+-] \d)+) = \? <think>", prompt)
    assert match, prompt
    return int(eval(match[1] + re.sub("[b-i]", "", match[2]))) % 10  # digits and signs only, by the pattern


def test_answers_equal_independent_arithmetic() -> None:
    for split in SPLITS:
        for problem in problems(500, 3, split):
            assert problem.answer == str(evaluated(problem.prompt))


def test_hand_worked_sum() -> None:
    item = Sum((3, 4, 9, 2), ("+", "-", "+"))
    assert item.prompt == "<bos> a 3 b + 4 c - 9 d + 2 = ? <think>"
    assert [item.partial(steps) for steps in range(4)] == [3, 7, 8, 0]
    assert item.answer == 0
    assert item.terms == [("b", "+", 4), ("c", "-", 9), ("d", "+", 2)]


def test_terms_are_named_in_the_order_of_the_alphabet() -> None:
    for problem in problems(200):
        names = re.findall("[a-z]", problem.prompt.removeprefix("<bos>").removesuffix("<think>"))
        assert "".join(names) == "abcdefghi"[: len(names)]


def test_every_length_occurs_in_every_split() -> None:
    for split in SPLITS:
        lengths = {len(re.findall("[+-]", problem.prompt)) for problem in problems(400, 0, split)}
        assert lengths == set(range(MIN_OPERATIONS, MAX_OPERATIONS + 1))


def test_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert problems(40, 5) == problems(40, 5)
    assert [p.prompt for p in problems(40, 5)] != [p.prompt for p in problems(40, 6)]
    assert problems(40, 5)[:10] == problems(10, 5)


def test_no_problem_is_in_two_splits_whatever_the_seeds() -> None:
    prompts = {
        split: {problem.prompt for seed in range(5) for problem in problems(2000, seed, split)}
        for split in ("train", "validation", "test")
    }
    assert all(len(found) > 5000 for found in prompts.values())
    for one, other in combinations(prompts.values(), 2):
        assert not one & other


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        problems(-1)
    for n in (0, 1):
        with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
            problems(n, 0, "dev")
    assert problems(0) == []


RIGHT = "b 3 + 4 = 7 . </think> answer is 7 <eos>"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (RIGHT, 1.0),
        ("</think> answer is 7", 1.0),  # cut at the solution budget, graded as it stands
        ("</think> so b 3 + 4 = 7 answer is 7 <eos>", 1.0),
        ("</think> answer is 7 <eos> answer is 2", 1.0),  # behind EOS nothing counts
        ("</think> answer is 2 . wait answer is 7 <eos>", 1.0),  # the last statement counts
        ("</think> wait </think> answer is 7 <eos>", 1.0),  # only the first marker splits
        ("answer is 2 </think> answer is 7 <eos>", 1.0),
        ("</think> answer is 7 </think> answer is 2 <eos>", 0.0),
        ("</think> answer is 8 <eos>", 0.0),
        ("answer is 7 </think> <eos>", 0.0),  # an answer in the thinking only
        ("answer is 7 <eos>", 0.0),  # no end marker
        ("answer is 7 </think> answer is", 0.0),  # cut in front of the digit
        ("</think> answer is 7 2 <eos>", 0.0),  # hedging
        ("</think> 7 <eos>", 0.0),  # no statement
        ("", 0.0),
    ],
)
def test_reward_reads_the_statement_behind_the_first_end_marker(response: str, expected: float) -> None:
    assert tiny.reward(response, "7") == expected


def test_stated_answer_is_none_without_a_statement() -> None:
    assert tiny.stated_answer("answer is 7") is None
    assert tiny.stated_answer("</think> answer is") is None
    assert tiny.stated_answer(RIGHT) == "7"
