"""Texts cut to their room."""

import random

import pytest

from elastic.evaluate.report.page.page import embedded
from elastic.evaluate.report.payload.texts import READABLE, fit, shortened, size_of


def test_the_middle_gives_way_and_the_note_counts_what_is_gone() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghij", 5) == "abc [... 5 characters left out ...] ij"
    assert shortened("abcdefghij", 0) == " [... 10 characters left out ...] "


def test_sizes_are_those_in_the_page() -> None:
    value = {"text": "a\u2028b <é> \ud800 \U0001f600 \n\\", "number": [1.5, None]}
    assert size_of(value) == len(embedded(value).encode())


def problems(rng: random.Random, count: int) -> list[list[list[str]]]:
    """Two texts each, of up to 9,000 characters."""
    texts = [
        ["".join(rng.choices("ab <é", k=rng.choice([5, 400, 9000]))) for _ in "ab"] for _ in range(count)
    ]
    return [[["thinking", first], ["solution", second]] for first, second in texts]


def size(found: list[list[list[str]]]) -> int:
    return sum(size_of(text) for segments in found for _, text in segments)


@pytest.mark.parametrize("room", [8_000, 60_000, 150_000, 300_000])
def test_texts_fit_and_the_longest_give_way_first(room: int) -> None:
    found = problems(random.Random(room), 30)
    before = [[list(part) for part in segments] for segments in found]
    cuts = fit(found, room)
    assert size(found) <= room
    limits = [cuts.readable] * cuts.first + [cuts.others] * (30 - cuts.first)
    for segments, old, limit in zip(found, before, limits, strict=True):
        assert segments == [[kind, text if limit is None else shortened(text, limit)] for kind, text in old]


def test_where_not_all_can_be_read_the_first_problems_can() -> None:
    found = problems(random.Random(0), 30)
    cuts = fit(found, 60_000)
    assert 3 <= cuts.first < 30
    assert cuts.readable is None or cuts.readable >= READABLE
    assert cuts.others is not None
    assert cuts.others < READABLE
    assert 0.4 < size(found[: cuts.first]) / 60_000 <= 0.5


def test_texts_that_fit_are_left_alone() -> None:
    found = [[["thinking", "abc"]]]
    assert fit(found, 5) == (1, None, None)
    assert fit([], 0) == (0, None, None)
    assert found == [[["thinking", "abc"]]]
