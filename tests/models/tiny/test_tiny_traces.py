"""The pretraining traces, read back by regular expressions and checked by arithmetic of their own."""

import random
import re
from itertools import islice

import pytest

from elastic.data.sums import Sum, sums
from elastic.models import tiny
from elastic.models.tiny.traces import Trace, cut_trace, trace

STEP = re.compile(r"([b-i]) (\d) ([+-]) (\d) = (\d)")
DOUBT = re.compile(r"wait : (\d) ([+-]) (\d) = (\d) ok \.")
Step = tuple[str, int, str, int, int]


def drawn(seed: int, n: int) -> list[tuple[Sum, Trace]]:
    rng = random.Random(seed)
    return [(item, trace(rng, item)) for item in islice(sums(rng), n)]


def drawn_cut(seed: int, n: int, goes_on_share: float) -> list[tuple[Sum, Trace]]:
    rng = random.Random(seed)
    return [(item, cut_trace(rng, item, goes_on_share)) for item in islice(sums(rng), n)]


def steps_of(words: tuple[str, ...]) -> list[Step]:
    found = STEP.findall(" ".join(words))
    return [(name, int(value), sign, int(digit), int(result)) for name, value, sign, digit, result in found]


def is_right(step: Step) -> bool:
    _, value, sign, digit, result = step
    return (value + digit if sign == "+" else value - digit) % 10 == result


def in_prompt(prompt: str) -> list[tuple[str, str, int]]:
    """The named terms of a prompt behind its start, read from its text."""
    return [(name, sign, int(digit)) for name, sign, digit in re.findall(r"([b-i]) ([+-]) (\d)", prompt)]


def passes(written: Trace) -> list[tuple[str, ...]]:
    """The words of the first and, where there is one, of the second pass."""
    return [tuple(part.split()) for part in " ".join(written.thinking).split("wait check :")]


def test_steps_are_right_but_for_rare_slips() -> None:
    steps = [step for _, written in drawn(1, 3000) for step in steps_of(written.thinking)]
    wrong = sum(not is_right(step) for step in steps)
    assert len(steps) > 15_000
    assert 0 < wrong < 0.003 * len(steps)


def test_a_doubt_states_the_step_before_it_and_its_right_result() -> None:
    seen = 0
    for _, written in drawn(2, 300):
        text = " ".join(written.thinking)
        for match in DOUBT.finditer(text):
            value, sign, digit, result = match.groups()
            assert is_right(("", int(value), sign, int(digit), int(result)))
            assert STEP.findall(text[: match.start()])[-1][1:4] == (value, sign, digit)
            seen += 1
    assert seen > 150


def test_thinking_walks_once_or_twice_through_the_whole_sum_in_order() -> None:
    twice = 0
    for item, written in drawn(3, 400):
        walked = [(name, sign, digit) for name, _, sign, digit, _ in steps_of(written.thinking)]
        whole = in_prompt(item.prompt)
        assert walked in (whole, whole + whole)
        twice += walked != whole
    assert 100 < twice < 180  # 35 %


def test_every_step_starts_from_the_running_value() -> None:
    for item, written in drawn(4, 300):
        for words in passes(written):
            value = item.digits[0]
            for sentence in re.findall(rf"{STEP.pattern} \.|{DOUBT.pattern}", " ".join(words)):
                _, start, _, _, result, doubted, _, _, right = sentence
                assert not start or int(start) == value
                assert not doubted or right
                value = int(right or result)


def test_a_long_sentence_restates_the_running_value() -> None:
    restated = [
        re.findall(r"we have (\d) \. [b-i] (\d)", " ".join(written.thinking)) for _, written in drawn(5, 300)
    ]
    assert sum(map(len, restated)) > 1000
    assert all(said == used for found in restated for said, used in found)


def test_nearly_all_whole_traces_answer_right() -> None:
    graded = [
        tiny.reward(" ".join(["</think>", *written.solution]), str(item.answer))
        for item, written in drawn(6, 1000)
    ]
    assert 0.985 < sum(graded) / len(graded) < 1.0


def test_solutions_behind_a_finished_thought_only_state_or_restate_the_answer() -> None:
    solutions = {" ".join(written.solution) for _, written in drawn(7, 400)}
    assert all(re.fullmatch(r"(so )?answer is \d <eos>", solution) for solution in solutions)
    assert any(solution.startswith("so ") for solution in solutions)


def test_a_solution_that_goes_on_does_the_missing_steps_and_no_other() -> None:
    went_on = 0
    for item, written in drawn_cut(8, 400, goes_on_share=1.0):
        whole = in_prompt(item.prompt)
        before, after = steps_of(passes(written)[0]), steps_of(written.solution)
        assert written.cut
        assert written.solution[0] == "so"
        assert [(name, sign, digit) for name, _, sign, digit, _ in before + after] == whole
        assert len(written.solution) == 1 + 6 * len(after) + 4
        assert all(is_right(step) for step in after)
        if after:
            went_on += 1
            assert written.solution[-4:] == ("answer", "is", str(after[-1][4]), "<eos>")
    assert went_on > 200


def test_a_solution_goes_on_from_the_value_that_stands_on_paper() -> None:
    for item, written in drawn_cut(9, 400, goes_on_share=1.0):
        text = " ".join(passes(written)[0])
        results = re.findall(r"(?:[b-i]|:) \d [+-] \d = (\d)", text)
        for _, value, *_ in steps_of(written.solution)[:1]:
            assert value == int(results[-1] if results else item.digits[0])


def test_a_hasty_solution_states_the_running_value() -> None:
    right = []
    for item, written in drawn_cut(10, 400, goes_on_share=0.0):
        assert len(written.solution) == 4
        done = len(steps_of(passes(written)[0]))
        right.append(written.solution[2] == str(item.answer))
        if done == 0:
            assert written.solution[2] == str(item.digits[0])
    assert 0.2 < sum(right) / len(right) < 0.45  # after the last step, or by chance


def test_some_thoughts_are_cut_before_their_first_word() -> None:
    empty = sum(not written.thinking for _, written in drawn_cut(11, 400, goes_on_share=0.5))
    assert 20 < empty < 80


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_solutions_that_go_on_is_the_stated_one(share: float) -> None:
    cut = [written.solution[0] == "so" for _, written in drawn_cut(12, 1000, share)]
    assert sum(cut) / len(cut) == pytest.approx(share, abs=0.05)
