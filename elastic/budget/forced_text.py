"""The texts a budget forces, as token ids: the closing sequence F, the extension, the notices.

A text that the rules forbid (R4, R11, R12) is refused here, in an error that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elastic.budget.checks import Text
from elastic.budget.markers import Markers, NaturalEnd
from elastic.budget.pattern import Pattern, Spelling
from elastic.budget.token_text import check_ids, encode, encode_checked, token_texts
from elastic.budget.values import CLOSINGS, BudgetValues


@dataclass(frozen=True)
class ForcedTexts:
    """The forced texts of one budget as ids.

    Attributes:
        closing: F.
        tail: index in `closing` behind its end marker.
        rests: for each spelling of every natural end, the end marker in that spelling, up to where F goes on.
            If that spelling is in progress at a cut, its missing tokens are forced (R3). Empty for an end
            that is never forced.
        extension: what replaces an early end (R11).
        notices: pairs (used thinking tokens, ids), R12.
    """

    closing: list[int]
    tail: int
    rests: list[list[int]]
    extension: list[int]
    notices: list[tuple[int, list[int]]]

    @property
    def all(self) -> list[list[int]]:
        """Every text."""
        return [self.closing, *self.rests, self.extension, *(ids for _, ids in self.notices)]


def forced_texts(budget: BudgetValues, markers: Markers, tokenizer: Any, eos: frozenset[int]) -> ForcedTexts:
    """Encodes and checks the forced texts of one budget (R4, R11, R12)."""
    closing, tail = _closing(budget.closing, markers, tokenizer)
    _refuse_eos("closing", budget.closing, closing, eos)
    extension: list[int] = []
    if budget.max_extensions > 0:
        extension = _inserted("extension", budget.extension, markers, tokenizer, eos)
    notices = [(used, _inserted("notices", text, markers, tokenizer, eos)) for used, text in budget.notices]
    return ForcedTexts(closing, tail, _rests(closing[:tail], markers, tokenizer), extension, notices)


def _closing(closing: Text | None, markers: Markers, tokenizer: Any) -> tuple[list[int], int]:
    """F as ids, and the index behind its end marker."""
    if isinstance(closing, str) and closing in CLOSINGS:
        closing = CLOSINGS[closing]
    if closing is None:
        return list(markers.end), len(markers.end)
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
    _refuse_other_ends(closing, ids, tail, markers)
    return ids, tail


def _refuse_other_ends(closing: Text, ids: list[int], tail: int, markers: Markers) -> None:
    """Refuses other natural ends in F, except opening ones behind the marker and the bare tag inside it."""
    marker = tail - markers.end_pattern.tail(ids[:tail])
    for end in markers.ends:
        pattern = Pattern(end.spellings)
        allowed = range(tail, len(ids)) if end.opens else range(0)
        if _is_bare(end, markers):
            allowed = range(marker, tail)
        if any(position not in allowed for position in pattern.ends(ids)):
            shown = end.text or list(end.spellings[0].ids)
            raise ValueError(f"closing: {closing!r} holds the natural end {shown!r} (ids {ids})")


def _is_bare(end: NaturalEnd, markers: Markers) -> bool:
    """Whether an end is the end marker's tag without the text around it (R18)."""
    if end.opens:
        return False
    if end.text and markers.end_text:
        return end.text in markers.end_text
    return any(_within(spelling.ids, markers.end) for spelling in end.spellings)


def _within(ids: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return any(whole[i : i + len(ids)] == ids for i in range(len(whole) - len(ids) + 1))


def _rests(head: list[int], markers: Markers, tokenizer: Any) -> list[list[int]]:
    """See `ForcedTexts.rests`; `head` is F up to and including its end marker."""
    rests = [_rest(s, markers.end_spellings, head, tokenizer) for s in markers.end_spellings]
    for end in markers.ends:
        bare = _is_bare(end, markers)
        rests += [_rest(s, end.spellings, head, tokenizer) if bare else [] for s in end.spellings]
    return rests


def _rest(spelling: Spelling, ways: Sequence[Spelling], head: list[int], tokenizer: Any) -> list[int]:
    """An end in the given spelling, and what follows the end in `head`, which has it in one of `ways`."""
    at = max(Pattern(ways).ends(head), default=len(head) - 1)
    last, behind = head[at], head[at + 1 :]
    if last in spelling.last_ids:  # it ends with the same piece, perhaps merged with the text behind it
        return [*spelling.ids[:-1], last, *behind]
    written = _written(ways, head[: at + 1])
    if tokenizer is not None and written is not None:
        text, piece = (token_texts(tokenizer)[token] for token in (last, written.ids[-1]))
        if piece and piece in text and text != piece:
            behind = [*encode(tokenizer, text[text.index(piece) + len(piece) :]), *behind]
    return [*spelling.ids, *behind]


def _written(ways: Sequence[Spelling], ids: list[int]) -> Spelling | None:
    """The spelling in which these ids end."""
    pattern, match = Pattern(ways), 0
    for token in ids:
        match = pattern.advance(match, token)
    found = pattern.completed(match)
    return None if found is None else pattern.spellings[found]


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
        # The tokenizer writes the marker in unknown pieces here. The model must see the marker's own ids.
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
    texts = [markers.end_text, *(end.text for end in markers.ends)]
    for shown, pattern in (([markers.start_text], markers.start_pattern), (texts, markers.ends_pattern)):
        found = pattern.ends(ids)
        written = [t for t in shown if isinstance(text, str) and t and t in text]
        if found or written:
            known = [*written, *filter(None, shown)]
            marker = known[0] if known else list(pattern.spellings[0].ids)
            raise ValueError(f"{name}: {text!r} holds the marker {marker!r}")
    ends = markers.ends_pattern
    if ends.ends(ids, ends.anything_begun) or ends.in_progress(ids, ends.anything_begun):
        raise ValueError(
            f"{name}: {text!r} (ids {ids}) completes or begins the end marker "
            f"{markers.end_text or list(markers.end)!r}, or another natural end, with the text around it"
        )
    _refuse_eos(name, text, ids, eos)
    return ids


def _refuse_eos(name: str, text: Text | None, ids: list[int], eos: frozenset[int]) -> None:
    if eos & set(ids):
        raise ValueError(f"{name}: {text!r} holds the EOS token {sorted(eos & set(ids))} (ids {ids})")
