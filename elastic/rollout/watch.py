"""Looks at what rows emit: for whoever follows them, and to end rows at their stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from elastic.budget import Phase, Source
from elastic.budget.token_text import decode
from elastic.rollout.record.row_text import RowText
from elastic.rollout.tail import Emitted, Tail


class Token(NamedTuple):
    """A token that a row emitted.

    Attributes:
        row: index of the row in the batch.
        token: its id.
        text: what it adds to the completion: "" while a character's bytes are still coming, or what is there
            may be the beginning of a stop string; the row's last token has what is left. The texts of a row
            together are `RolloutBatch.text`, but for a row that is cancelled, whose held-back text the record
            alone has, or that ends inside a character which other characters in byte-fallback tokens precede:
            decoding the whole loses those.
        phase: that it was emitted in.
        source: whether the model chose it.
    """

    row: int
    token: int
    text: str
    phase: Phase
    source: Source


class Step(NamedTuple):
    """What a step brought; tokens only where a watch reads them.

    Attributes:
        tokens: emitted, rows in the order of their slots.
        ended: rows that emit nothing from here on.
    """

    tokens: list[Token]
    ended: list[int]


class Watch:
    """Turns what the log says into tokens with their texts.

    Args:
        tokenizer: of the texts, or None for none.
        stop: strings that end a row; they need a tokenizer.
        eos_ids: tokens that end a row, which are no part of its text.
        lagged: as a `Tail`'s.

    Attributes:
        kept: of each row that a stop string ended, its tokens up to the one that completed it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], eos_ids: Sequence[int], lagged: bool):
        self.kept: dict[int, int] = {}
        self._tail = Tail(lagged)
        self._tokenizer, self._stop, self._eos = tokenizer, stop, frozenset(eos_ids)
        self._texts: dict[int, RowText] = {}
        self._fresh: list[int] = []

    def post(self, log: Sequence[Tensor], rows: Sequence[int], begins: Sequence[int]) -> None:
        """Takes some steps of the log: its five fields, and where they go as in `RecordBuffer.write`."""
        self._tail.post(log[:3], rows, begins)

    def look(self, *, rest: bool = False) -> list[Token]:
        """Tokens since the last look, without those behind a stop string; `rest` as in `Tail.read`."""
        return [self._token(found) for found in self._tail.read(rest=rest) if found.row not in self.kept]

    def _token(self, found: Emitted) -> Token:
        return Token(found.row, found.token, self._text(found), Phase(found.phase), Source(found.source))

    def _text(self, found: Emitted) -> str:
        sampled = found.source == Source.SAMPLED
        if self._tokenizer is None or (sampled and found.token in self._eos):
            return ""
        if found.row not in self._texts:
            self._texts[found.row] = RowText(lambda ids: decode(self._tokenizer, ids), self._stop)
        text = self._texts[found.row]
        piece = text.push(found.token, may_stop=sampled and found.phase == Phase.SOLUTION)
        if text.stopped:
            self.kept[found.row] = found.column + 1
            self._fresh.append(found.row)
        return piece

    def stopped(self) -> list[int]:
        """Rows of which the last look found a stop string."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def complete(self, step: Step) -> list[Token]:
        """Tokens of a step; the last one of a row that ended has what was held back of its text.

        For looks at every step that do not lag: the row has no more tokens.
        """
        tokens = step.tokens
        for row in step.ended:
            text = self._texts.pop(row, None)
            left = "" if text is None else text.finish()
            at = max((i for i, token in enumerate(tokens) if token.row == row), default=None)
            if left and at is not None:
                tokens[at] = tokens[at]._replace(text=tokens[at].text + left)
        return tokens
