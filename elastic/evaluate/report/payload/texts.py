"""Texts cut to what a page has room for."""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

Segments = Sequence[list[str]]  # [kind, text] each

READABLE = 1_500  # characters of a text
MOST_CHARACTERS = 20_000  # of a text that is kept at all
_MARK = 60  # bytes that the note in a shortened text takes, at most


def shortened(text: str, most: int) -> str:
    """The text, without its middle if it has more than so many characters; a note says how many are gone."""
    if len(text) <= most:
        return text
    head = (most + 1) // 2
    left_out = f"{len(text) - most:,}"
    return f"{text[:head]} [... {left_out} characters left out ...] {text[len(text) - most // 2 :]}"


def size_of(value: Any) -> int:
    """Bytes of a value in the page: compact JSON in UTF-8, each `<` written as six characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "backslashreplace")) + 5 * text.count("<")


class Cuts(NamedTuple):
    """How texts were shortened.

    Attributes:
        first: how many problems keep readable texts.
        readable: most characters of a text of theirs; None where none was shortened.
        others: of a text of the others; None likewise.
    """

    first: int
    readable: int | None
    others: int | None


def fit(problems: Sequence[Segments], room: int) -> Cuts:
    """Shortens texts in place until all of them together take so many bytes.

    Where not all can be read, half of the room is for the first problems, in texts of `READABLE` characters
    or more, and the others share the rest: a few that can be read say more than many that cannot.

    Args:
        problems: the [kind, text] lists of each.
        room: for the texts alone, in bytes.
    """
    costs = [_cost(_sizes(segments), READABLE) for segments in problems]
    if sum(costs) <= room:
        return Cuts(len(problems), _shorten([part for found in problems for part in found], room), None)
    first = sum(total <= room / 2 for total in accumulate(costs))
    readable = [part for found in problems[:first] for part in found]
    others = [part for found in problems[first:] for part in found]
    limit = _shorten(readable, room // 2)
    left = room - sum(size for _, size in _sizes(readable))
    return Cuts(first, limit, _shorten(others, left))


def _shorten(segments: Segments, room: int) -> int | None:
    """The longest texts give way first; the most characters of a text, None where none is shortened."""
    sizes = _sizes(segments)
    if not sizes or sum(size for _, size in sizes) <= room:
        return None
    low, high = 0, max(length for length, _ in sizes)
    while low < high:  # the greatest limit that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _cost(sizes, middle) <= room else (low, middle - 1)
    for segment in segments:
        segment[1] = shortened(segment[1], low)
    return low


def _sizes(segments: Segments) -> list[tuple[int, int]]:
    """(characters, bytes) of every text."""
    return [(len(text), size_of(text)) for _, text in segments]


def _cost(sizes: Sequence[tuple[int, int]], most: int) -> float:
    """Bytes of texts with at most so many characters each."""
    return sum(size if length <= most else size * most / length + _MARK for length, size in sizes)
