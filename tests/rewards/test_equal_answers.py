"""Which answers are the same: a table for each rule in same_answers.py and different_answers.py."""

import pytest

from elastic.rewards import equal
from elastic.rewards.equal import equal_answers
from tests.rewards.different_answers import DIFFERENT
from tests.rewards.same_answers import SAME

# What needs no mathematics, so that it holds without math-verify too.
BY_TEXT = (
    "plain numbers",
    "thousands",
    "mixed numbers",
    "repeating decimals",
    "percent",
    "words",
    "number bases",
)
# Where the reference says what is asked for: a share in percent, a whole equation.
ONE_WAY = ("percent", "sums of names")


def rows(table, rules=None):
    return [
        pytest.param(stated, answer, id=f"{rule}-{stated[:30]}-{answer[:30]}")
        for rule, pairs in table.items()
        if rules is None or rule in rules
        for stated, answer in pairs
    ]


@pytest.mark.parametrize(("stated", "answer"), rows(SAME))
def test_answers_written_differently_are_the_same(stated, answer):
    assert equal_answers(stated, answer)
    assert equal_answers(stated, stated)


@pytest.mark.parametrize(("stated", "answer"), rows(DIFFERENT))
def test_answers_that_differ_are_different(stated, answer):
    assert not equal_answers(stated, answer)


@pytest.mark.parametrize(("table", "same"), [(SAME, True), (DIFFERENT, False)])
def test_only_percent_signs_and_sums_depend_on_which_answer_is_the_reference(table, same):
    pairs = [pair for rule, pairs in table.items() if rule not in ONE_WAY for pair in pairs]
    assert [pair for pair in pairs if equal_answers(pair[1], pair[0]) is not same] == []


@pytest.mark.parametrize(("stated", "answer"), rows(SAME, BY_TEXT))
def test_text_rules_need_no_library(stated, answer, monkeypatch):
    monkeypatch.setattr(equal, "same_to_math_verify", lambda *_: False)
    assert equal_answers(stated, answer)


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        ("5 # 7", "7"),
        ("5 @ 7", "5"),
        ("not 5", "5"),
        (r"5 \to 7", "7"),
        (r"5 \Rightarrow 7", "7"),
        (r"\ge 5", "5"),
        (r"\ne 5", "5"),
        (r"\sim 5", "5"),
        (r"\lim 5", "5"),
        ("5?", "5"),
        ("1.2.3", "1.2"),
        ("5'", "5"),
        ("5_x", "5"),
        (r"5 \pmod{7}", "5"),
        (r"5\text{ or more}", "5"),
        (r"5 \text{ (wrong)}", "5"),
        ("3 tenths", "3"),
        ("5 million", "5"),
        ("5 dozen", "5"),
        ("5 squared", "5"),
        (r"5\\6", "56"),
        (r"\frac{5}{}", "5"),
    ],
)
def test_no_part_of_an_answer_stands_for_all_of_it(stated, answer):
    assert not equal_answers(stated, answer)


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        ("5 million", "5000000"),
        (r"\$2.5\text{ billion}", "2500000000"),
        ("10:30 a.m.", r"10:30 \text{ AM}"),
        (r"\sin 30°", "0.5"),
        ("25π cm^2", r"25\pi\text{ square centimeters}"),
        (r"5\text{ inches}", r"5\text{ in}"),
    ],
)
def test_words_that_change_a_value_are_read(stated, answer):
    assert equal_answers(stated, answer)


@pytest.mark.parametrize(
    "text", ["(" * 400, r"\frac" * 200, "1," * 400, "x^" * 400, r"\sqrt{" * 150, "9" * 5000]
)
def test_degenerate_text_is_no_answer(text):
    assert not equal_answers(text, "5")
    assert equal_answers(text, text)
