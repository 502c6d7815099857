"""Matching markers in a stream of token ids.

A marker of ordinary tokens is not always written with the same ids. Its first and its last piece may merge
with the text around it (" <", ">\\n\\n"), and a merged piece may split what stands behind it in another way:
"<think>" alone reads ["<th", "ink", ">"] in a vocabulary that reads "x <think>" as ["x", " <", "think", ">"].
Each way is a `Spelling`; a `Pattern` finds several of them, and several markers, at once. Each token of each
spelling is one place, one bit of a mask. One mask holds the places a token can take, another the places that
the stream has reached (shift-and matching).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

LONGEST_MARKER = 24  # tokens of one spelling
# Bits of a token's int64 entry: 8 flags, 24 places of start markers, 28 of ends, 3 of a character's bytes.
START_PLACES = 24
END_PLACES = 28


@dataclass(frozen=True)
class Spelling:
    """One way in which a vocabulary writes a marker.

    Attributes:
        ids: one token per place.
        first: further ids for the first place: tokens that end in its piece of the marker.
        last: further ids for the last place: tokens that begin with its piece.
        text_before: the ids among `first` whose text in front of the marker is not white space alone.
    """

    ids: tuple[int, ...]
    first: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()
    text_before: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last_ids(self) -> list[int]:
        """Every token that can complete it."""
        end = {self.ids[-1], *self.last}
        return sorted(end | self.first if len(self.ids) == 1 else end)


class Pattern:
    """Finds any of several spellings in token ids.

    Attributes:
        spellings: what is looked for.
        offsets: bit of the first place of each spelling.
        places: token id -> bit mask of the places it can take.
        firsts: bits of all first places.
        lasts: bits of all last places.
    """

    def __init__(self, spellings: Sequence[Spelling]) -> None:
        self.spellings = tuple(spellings)
        self.offsets: list[int] = []
        self.places: dict[int, int] = {}
        self.firsts = self.lasts = 0
        bit = 0
        for spelling in self.spellings:
            self.offsets.append(bit)
            last = bit + len(spelling) - 1
            for place, token in enumerate(spelling.ids, start=bit):
                self._add(token, place)
            for token in spelling.first:
                self._add(token, bit)
            for token in spelling.last:
                self._add(token, last)
            self.firsts |= 1 << bit
            self.lasts |= 1 << last
            bit = last + 1
        self.size = bit

    def _add(self, token: int, place: int) -> None:
        self.places[token] = self.places.get(token, 0) | 1 << place

    def advance(self, match: int, token: int) -> int:
        """Places reached behind `token`."""
        return (match << 1 | self.firsts) & self.places.get(token, 0)

    def completed(self, match: int) -> int | None:
        """The longest spelling that is complete, the first of equal ones; None if there is none."""
        done = [i for i, bit in enumerate(self.offsets) if match >> (bit + len(self.spellings[i]) - 1) & 1]
        return max(done, key=lambda i: len(self.spellings[i]), default=None)

    def ends(self, tokens: Iterable[int], match: int = 0) -> list[int]:
        """Positions at which an occurrence ends, overlapping ones included.

        Args:
            tokens: token ids.
            match: places reached before them.
        """
        found = []
        for position, token in enumerate(tokens):
            match = self.advance(match, token)
            if match & self.lasts:
                found.append(position)
        return found

    def in_progress(self, tokens: Iterable[int], match: int = 0) -> bool:
        """Whether a marker has begun, and is not complete, behind these tokens."""
        for token in tokens:
            match = self.advance(match, token)
        return match & ~self.lasts != 0

    @cached_property
    def anything_begun(self) -> int:
        """The match behind a text that ended inside every marker at every place."""
        return ((1 << self.size) - 1) & ~self.lasts

    def tail(self, tokens: Sequence[int]) -> int:
        """Tokens of the occurrence that ends exactly where the tokens end; 0 if none does."""
        match = 0
        for token in tokens[-LONGEST_MARKER:]:
            match = self.advance(match, token)
        found = self.completed(match)
        return 0 if found is None else len(self.spellings[found])
