"""Texts cut to their room."""

import random

import pytest

from elastic.evaluate.report.page.page import embedded
from elastic.evaluate.report.payload.texts import fit, shortened, size_of


def test_the_middle_gives_way_and_the_note_counts_what_is_gone() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghij", 5) == "abc [... 5 characters left out ...] ij"
    assert shortened("abcdefghij", 0) == " [... 10 characters left out ...] "


def test_sizes_are_those_in_the_page() -> None:
    value = {"text": "a\u2028b <é> \ud800 \U0001f600 \n\\", "number": [1.5, None]}
    assert size_of(value) == len(embedded(value).encode())


@pytest.mark.parametrize("room", [3_000, 20_000, 100_000])
def test_texts_fit_and_the_longest_give_way_first(room: int) -> None:
    rng = random.Random(room)
    segments = [["thinking", "".join(rng.choices("ab <é", k=rng.choice([5, 400, 9000])))] for _ in range(30)]
    before = [list(segment) for segment in segments]
    most = fit(segments, room)
    assert most is not None
    assert sum(size_of(text) for _, text in segments) <= room
    for (_, text), (_, old) in zip(segments, before, strict=True):
        assert text == shortened(old, most)


def test_texts_that_fit_are_left_alone() -> None:
    segments = [["thinking", "abc"]]
    assert fit(segments, 5) is None
    assert fit([], 0) is None
    assert segments == [["thinking", "abc"]]
