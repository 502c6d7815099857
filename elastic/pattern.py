"""Matching a marker in a stream of token ids, with several ids for its first and last place if need be.

A marker of ordinary tokens may merge with its neighbours: many vocabularies hold ">\\n\\n" and ".</" as
single tokens, so that "</think>" behind a full stop reads [".</", "think", ">\\n\\n"]. The text is a marker
all the same. A `Pattern` therefore knows, for each place of the marker, every token that stands for it. The
set of places a token can take is a bit mask; the set of places the stream has reached is another one
(shift-and matching).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Bits of one int64 entry per token: 8 flags, 24 places of the start marker, 24 of the end marker.
LONGEST_MARKER = 24


@dataclass(frozen=True)
class Pattern:
    """A marker's ids, and the tokens that hold its first or last piece together with neighbouring text.

    Attributes:
        ids: the marker as it is written alone.
        first: further ids for the first place.
        last: further ids for the last place.
    """

    ids: tuple[int, ...]
    first: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()
    _places: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        for place, token in enumerate(self.ids):
            self._add(token, place)
        for token in self.first:
            self._add(token, 0)
        for token in self.last:
            self._add(token, len(self.ids) - 1)

    def _add(self, token: int, place: int) -> None:
        self._places[token] = self._places.get(token, 0) | 1 << place

    @property
    def places(self) -> dict[int, int]:
        """Token id -> bit mask of the places it can take."""
        return self._places

    @property
    def last_ids(self) -> list[int]:
        """Every token that can complete the marker."""
        return sorted(token for token, places in self._places.items() if self.completes(places))

    def advance(self, match: int, token: int) -> int:
        """Places reached behind `token`; bit i: the last i + 1 tokens are the first of a marker."""
        return (match << 1 | 1) & self._places.get(token, 0)

    def completes(self, match: int) -> bool:
        return bool(match >> (len(self.ids) - 1) & 1)

    def ends(self, tokens: Iterable[int], match: int = 0) -> list[int]:
        """Positions at which an occurrence ends, overlapping ones included.

        Args:
            tokens: token ids.
            match: places reached before them.
        """
        found = []
        for position, token in enumerate(tokens):
            match = self.advance(match, token)
            if self.completes(match):
                found.append(position)
        return found

    def in_progress(self, tokens: Iterable[int], match: int = 0) -> bool:
        """Whether a marker has begun, and is not complete, behind these tokens."""
        for token in tokens:
            match = self.advance(match, token)
        return match & ((1 << (len(self.ids) - 1)) - 1) != 0

    def is_tail_of(self, tokens: Sequence[int]) -> bool:
        """Whether an occurrence ends exactly where the tokens end."""
        tail = tokens[-len(self.ids) :]
        return len(tail) == len(self.ids) and self.ends(tail) == [len(tail) - 1]
