"""The texts a budget forces, as token ids: the closing sequence F, the extension, the notices.

What would not do what its author meant is refused here, naming the text (R4, R11, R12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elastic.budget import CLOSINGS, Budget, Text
from elastic.markers import Markers
from elastic.token_text import check_ids, encode, encode_checked


@dataclass(frozen=True)
class ForcedTexts:
    """The forced texts of one budget as ids. `closing[marker:tail]` is the end marker."""

    closing: list[int]
    marker: int
    tail: int
    extension: list[int]
    notices: list[tuple[int, list[int]]]


def forced_texts(budget: Budget, markers: Markers, tokenizer: Any, eos: frozenset[int]) -> ForcedTexts:
    """Encodes and checks the forced texts of one budget (R4, R11, R12)."""
    closing, marker, tail = _closing(budget.closing, markers, tokenizer)
    _refuse_eos("closing", budget.closing, closing, eos)
    extension: list[int] = []
    if budget.max_extensions > 0:
        extension = _inserted("extension", budget.extension, markers, tokenizer, eos)
    notices = [(used, _inserted("notices", text, markers, tokenizer, eos)) for used, text in budget.notices]
    return ForcedTexts(closing, marker, tail, extension, notices)


def _closing(closing: Text | None, markers: Markers, tokenizer: Any) -> tuple[list[int], int, int]:
    """F as ids, and where its end marker stands: [marker, tail)."""
    if isinstance(closing, str) and closing in CLOSINGS:
        closing = CLOSINGS[closing]
    if closing is None:
        return list(markers.end), 0, len(markers.end)
    ids = _closing_ids(closing, markers, tokenizer) if isinstance(closing, str) else list(closing)
    ends = markers.end_pattern.ends(ids)
    if len(ends) != 1:
        raise ValueError(
            f"closing: expected exactly one end marker {markers.end_text or list(markers.end)!r} in "
            f"{closing!r}, found {len(ends)} (ids {ids})"
        )
    if markers.start_pattern.ends(ids):
        raise ValueError(
            f"closing: {closing!r} holds the start marker {markers.start_text or list(markers.start)!r} "
            f"(ids {ids})"
        )
    tail = ends[0] + 1
    return ids, tail - len(markers.end), tail


def _closing_ids(closing: str, markers: Markers, tokenizer: Any) -> list[int]:
    if tokenizer is None or not markers.end_text:
        raise ValueError(
            f"closing: the text {closing!r} needs a tokenizer and the markers' texts; or give ids"
        )
    text = closing.replace("{end}", markers.end_text)
    before, *behind = text.split(markers.end_text)
    if len(behind) != 1:
        raise ValueError(
            f"closing: expected exactly one end marker {markers.end_text!r} in {text!r}, found {len(behind)}"
        )
    if markers.start_text and markers.start_text in before + "\0" + behind[0]:
        raise ValueError(f"closing: {text!r} holds the start marker {markers.start_text!r}")
    ids = encode(tokenizer, text)
    if len(markers.end_pattern.ends(ids)) != 1:
        # This tokenizer writes the marker in other pieces here. The model must see the marker itself.
        ids = [*encode(tokenizer, before), *markers.end, *encode(tokenizer, behind[0])]
    check_ids(tokenizer, ids, text, "closing")
    return ids


def _inserted(name: str, text: Text, markers: Markers, tokenizer: Any, eos: frozenset[int]) -> list[int]:
    """Ids of a text forced while thinking goes on; behind it no marker may be open or complete."""
    if isinstance(text, str):
        if tokenizer is None:
            raise ValueError(f"{name}: the text {text!r} needs a tokenizer; or give ids")
        ids = encode_checked(tokenizer, text, name)
    else:
        ids = list(text)
    for marker, pattern in (
        (markers.start_text, markers.start_pattern),
        (markers.end_text, markers.end_pattern),
    ):
        shown = marker or list(pattern.ids)
        if pattern.ends(ids) or (isinstance(text, str) and marker and marker in text):
            raise ValueError(f"{name}: {text!r} holds the marker {shown!r}")
    anything_begun = (1 << len(markers.end)) - 1
    if markers.end_pattern.ends(ids, anything_begun) or markers.end_pattern.in_progress(ids, anything_begun):
        raise ValueError(
            f"{name}: {text!r} (ids {ids}) completes or begins the end marker "
            f"{markers.end_text or list(markers.end)!r} with the text around it"
        )
    _refuse_eos(name, text, ids, eos)
    return ids


def _refuse_eos(name: str, text: Text | None, ids: list[int], eos: frozenset[int]) -> None:
    if eos & set(ids):
        raise ValueError(f"{name}: {text!r} holds the EOS token {sorted(eos & set(ids))} (ids {ids})")
