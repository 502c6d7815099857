"""docs/grading.md: the examples in its table are what the code does."""

import re
from pathlib import Path

import pytest

from elastic.rewards.equal import equal_answers
from elastic.rewards.worker import MEMORY_BYTES, SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "grading.md").read_text(encoding="utf-8")
PAIRS = re.findall(r"`([^`]+)` ([=≠]) `([^`]+)`", PAGE)


def test_the_page_has_examples_of_both_kinds():
    assert {sign for _, sign, _ in PAIRS} == {"=", "≠"}
    assert len(PAIRS) > 50


@pytest.mark.parametrize(("stated", "sign", "answer"), PAIRS)
def test_an_example_is_as_the_page_says(stated, sign, answer):
    assert equal_answers(stated, answer) == (sign == "=")


def test_the_limits_are_the_pages():
    assert f"{SECONDS:g} s of processor time and {MEMORY_BYTES >> 30} GiB per pair" in PAGE
