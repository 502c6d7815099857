"""Texts cut to what a page has room for."""

import json
from collections.abc import Sequence
from typing import Any

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


def fit(segments: Sequence[list[str]], room: int) -> int | None:
    """Shortens texts in place, the longest ones first, until all of them together take so many bytes.

    Args:
        segments: [kind, text] lists.
        room: for the texts alone, in bytes.

    Returns:
        The most characters of a text; None where none had to be shortened.
    """
    sizes = [(len(text), size_of(text)) for _, text in segments]
    if not sizes or sum(size for _, size in sizes) <= room:
        return None
    low, high = 0, max(length for length, _ in sizes)
    while low < high:  # the greatest limit that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _shortened_size(sizes, middle) <= room else (low, middle - 1)
    for segment in segments:
        segment[1] = shortened(segment[1], low)
    return low


def _shortened_size(sizes: Sequence[tuple[int, int]], most: int) -> float:
    """Bytes of texts of (characters, bytes) with at most so many characters each."""
    return sum(size if length <= most else size * most / length + _MARK for length, size in sizes)
