"""What each row of a call needs of the KV cache. Host only.

R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_COLUMNS = 512  # for the completions of rows without a budget; doubled when they need more


@dataclass(frozen=True)
class Needs:
    """The needs of R rows: one entry per row in each list.

    Attributes:
        tokens: of its completion that the cache has columns for from the start.
        columns: from the start, for its prompt and these tokens.
        grows: whether it may need more than that.
        most_columns: the most that it may need.
    """

    tokens: list[int]
    columns: list[int]
    grows: list[bool]
    most_columns: list[int]

    @classmethod
    def of(cls, prompt_tokens: Sequence[int], most: Sequence[int], bounded: Sequence[bool]) -> Needs:
        """The needs of rows whose prompts have so many tokens and which emit at most `most`.

        What a row with a bound of its own may need is there from the start (SPEC R5); the others begin with
        some and get more as they go.
        """
        tokens = [n if own else min(n, FIRST_COLUMNS) for n, own in zip(most, bounded, strict=True)]
        columns = [p + n for p, n in zip(prompt_tokens, tokens, strict=True)]
        grows = [n < m for n, m in zip(tokens, most, strict=True)]
        return cls(tokens, columns, grows, [p + m for p, m in zip(prompt_tokens, most, strict=True)])

    def grown(self, columns: int) -> Needs:
        """The same rows, those that grow having grown to `columns` where they may need as many."""
        grown = [
            max(now, min(most, columns)) if grows else now
            for now, most, grows in zip(self.columns, self.most_columns, self.grows, strict=True)
        ]
        return Needs(self.tokens, grown, self.grows, self.most_columns)
