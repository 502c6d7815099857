"""The embedded task: its traces are checked by arithmetic that knows nothing of how they were made."""

import random
import re

import pytest

from elastic import tiny
from elastic.tiny.task import MAX_OPERATIONS, MIN_OPERATIONS, Sum, Trace, cut_trace, problems, sums, trace


def evaluated(prompt: str) -> int:
    """The sum in a prompt, by Python's own arithmetic."""
    match = re.fullmatch(r"<bos> ([0-9 +-]+) = \? <think>", prompt)
    assert match, prompt
    return int(eval(match[1])) % 10  # digits and signs only, by the pattern above


def drawn(seed: int, n: int) -> list[tuple[Sum, Trace]]:
    rng = random.Random(seed)
    return [(item, trace(rng, item)) for _, item in zip(range(n), sums(rng), strict=False)]


def drawn_cut(seed: int, n: int, goes_on_share: float) -> list[tuple[Sum, Trace]]:
    rng = random.Random(seed)
    return [(item, cut_trace(rng, item, goes_on_share)) for _, item in zip(range(n), sums(rng), strict=False)]


def test_answers_equal_independent_arithmetic() -> None:
    for problem in problems(500, 3) + problems(500, 3, "test"):
        assert problem.answer == str(evaluated(problem.prompt))


def test_hand_worked_sum() -> None:
    item = Sum((3, 4, 9, 2), ("+", "-", "+"))
    assert item.prompt == "<bos> 3 + 4 - 9 + 2 = ? <think>"
    assert [item.partial(steps) for steps in range(4)] == [3, 7, 8, 0]
    assert item.answer == 0


def test_prompt_ends_with_the_start_marker() -> None:
    assert all(problem.prompt.endswith(" <think>") for problem in problems(50))


def test_every_length_occurs_in_both_splits() -> None:
    for split in ("train", "test"):
        lengths = {len(re.findall("[+-]", problem.prompt)) for problem in problems(400, 0, split)}
        assert lengths == set(range(MIN_OPERATIONS, MAX_OPERATIONS + 1))


def test_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert problems(40, 5) == problems(40, 5)
    assert [p.prompt for p in problems(40, 5)] != [p.prompt for p in problems(40, 6)]
    assert problems(40, 5)[:10] == problems(10, 5)


def test_train_and_test_problems_are_disjoint_whatever_the_seeds() -> None:
    train = {problem.prompt for seed in range(5) for problem in problems(2000, seed, "train")}
    test = {problem.prompt for seed in range(5) for problem in problems(2000, seed, "test")}
    assert len(train) > 5000
    assert len(test) > 5000
    assert not train & test


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        problems(-1)
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'dev'"):
        problems(1, 0, "dev")
    assert problems(0) == []


STEP = re.compile(r"(\d) ([+-]) (\d) (\d) ,|we have (\d) \. now ([+-]) (\d) gives (\d) \.")


def steps_of(words: tuple[str, ...]) -> list[tuple[int, str, int, int]]:
    found = []
    for match in STEP.finditer(" ".join(words)):
        value, operation, digit, result = (group for group in match.groups() if group is not None)
        found.append((int(value), operation, int(digit), int(result)))
    return found


def is_right(step: tuple[int, str, int, int]) -> bool:
    value, operation, digit, result = step
    return (value + digit if operation == "+" else value - digit) % 10 == result


def test_steps_are_right_but_for_rare_slips() -> None:
    steps = [step for _, written in drawn(1, 400) for step in steps_of(written.thinking)]
    wrong = sum(not is_right(step) for step in steps)
    assert len(steps) > 2000
    assert 0 < wrong < 0.02 * len(steps)


def test_thinking_walks_through_the_whole_sum_in_order() -> None:
    for item, written in drawn(2, 200):
        operands = [(operation, digit) for _, operation, digit, _ in steps_of(written.thinking)]
        whole = list(zip(item.operations, item.digits[1:], strict=True))
        assert operands in (whole, whole + whole)


def test_most_whole_traces_answer_right_and_state_it_last() -> None:
    graded = [
        tiny.reward(" ".join([*written.thinking, "</think>", *written.solution]), str(evaluated(item.prompt)))
        for item, written in drawn(3, 500)
    ]
    assert 0.93 < sum(graded) / len(graded) < 1.0


def test_solution_steps_are_always_right() -> None:
    computing = [steps_of(written.solution) for _, written in drawn(4, 400)]
    assert sum(bool(steps) for steps in computing) > 50
    assert all(is_right(step) for steps in computing for step in steps)


def last_pass(written: Trace) -> tuple[str, ...]:
    """The words of the pass that was being written when the thought was cut."""
    opening = " ".join(written.thinking).partition(" wait check : ")
    return tuple((opening[2] or opening[0]).split())


def test_solution_behind_a_cut_goes_on_where_the_thought_stopped() -> None:
    went_on = 0
    for item, written in drawn_cut(5, 300, goes_on_share=1.0):
        before, after = steps_of(last_pass(written)), steps_of(written.solution)
        operations = len(item.operations)
        if not after:
            assert len(before) == operations
            continue
        went_on += 1
        if len(before) + len(after) > operations:
            # a step whose check was cut, even before its first word, is done again
            assert after[0][:3] == before.pop()[:3]
        assert len(before) + len(after) == operations
        assert after[0][0] == (before[-1][3] if before else item.digits[0])
        assert written.solution[-4:-1] == ("answer", "is", str(after[-1][3]))
    assert went_on > 100


def test_hasty_solution_behind_a_cut_states_the_running_value() -> None:
    right = []
    for item, written in drawn_cut(6, 400, goes_on_share=0.0):
        assert len(written.solution) == 4
        right.append(written.solution[2] == str(item.answer))
    assert 0.02 < sum(right) / len(right) < 0.25  # by chance, or between two passes


def test_some_thoughts_are_cut_before_their_first_word() -> None:
    empty = sum(not written.thinking for _, written in drawn_cut(7, 400, goes_on_share=0.5))
    assert 20 < empty < 80


RIGHT = "3 + 4 7 , </think> answer is 7 <eos>"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (RIGHT, 1.0),
        ("</think> answer is 7", 1.0),  # cut at the solution budget, graded as it stands
        ("</think> 3 + 4 7 , answer is 7 <eos>", 1.0),
        ("</think> answer is 7 <eos> answer is 2", 1.0),  # behind EOS nothing counts
        ("</think> answer is 2 , wait answer is 7 <eos>", 1.0),  # the last statement counts
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
