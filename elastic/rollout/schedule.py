"""Which row decodes in which slot, and until when: the half of the decode loop that asks no device.

R rows, K prompts, S slots of which the first n are in use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

FIRST_COLUMNS = 512  # for the completions of rows without a budget; doubled when they need more


class Schedule:
    """Rows wait in a queue, slots take them, finished rows give their slot to the next.

    The host knows where every row stands without asking the device, because each row in flight emits one
    token a step. What it cannot know is when a row ends early: that it is told (`finish`).

    Args:
        prompt_index: of each row, its prompt.
        prompt_tokens: of each prompt, its length.
        most: of each row, the most tokens it emits.
        bounded: of each row, whether `most` is a bound of its own. What such a row may need is there from the
            start (SPEC R5); the others get more as they go.
        slots: S.
        refill: free slots that start a refill, or a compaction once the queue is empty.

    Attributes:
        used: n.
        row: of each slot, -1 for none; a finished row stays until the slot is reused.
        live: of each slot, whether its row still emits.
        alive: how many are live.
        start: of each slot, the step at which its row emits its first token.
        step: steps taken.
        first_tokens, first_columns: tokens of a completion, and cache columns, to begin with.
        most_tokens, most_columns: that the longest row may need.
    """

    def __init__(
        self,
        prompt_index: Sequence[int],
        prompt_tokens: Sequence[int],
        most: Sequence[int],
        bounded: Sequence[bool],
        slots: int,
        refill: int,
    ):
        self._prompt_index, self._most, self._refill = prompt_index, most, refill
        self._prompt_tokens = [prompt_tokens[k] for k in prompt_index]
        # In one slot the order costs nothing, so rows come as they were submitted.
        self._queue = deque(_longest_first(most, prompt_index) if slots > 1 else range(len(most)))
        self._waiting = [0] * len(prompt_tokens)
        for k in prompt_index:
            self._waiting[k] += 1
        self.used = slots
        self.row = [-1] * slots
        self.live = [False] * slots
        self.alive = 0
        self.start = [0] * slots
        self.step = 0
        self._next_end = 0  # earliest step at which a row in flight has emitted all it may
        self._columns_ahead = 0  # columns needed at a step, minus the step
        firsts = [n if own else min(n, FIRST_COLUMNS) for n, own in zip(most, bounded, strict=True)]
        self.first_tokens, self.most_tokens = max(firsts), max(most)
        self.first_columns = max(p + n for p, n in zip(self._prompt_tokens, firsts, strict=True))
        self.most_columns = max(p + n for p, n in zip(self._prompt_tokens, most, strict=True))

    @property
    def busy(self) -> bool:
        """Whether any row waits or emits."""
        return bool(self._queue) or self.alive > 0

    @property
    def columns(self) -> int:
        """Cache columns that the next forward reads: one more than a row in flight writes to at most."""
        return min(self.step + self._columns_ahead, self.most_columns)

    @property
    def sparse(self) -> bool:
        """Whether so many slots are free, and no row waits for them, that a compaction is worth it."""
        free = self.used - self.alive
        return not self._queue and free >= min(self._refill, max(1, self.used // 8))

    def refill(self) -> list[int]:
        """The slots to `admit` rows to now; none where too few are free."""
        free = self.used - self.alive
        if not self._queue or (self.alive and free < min(self._refill, len(self._queue))):
            return []
        return [s for s in range(self.used) if not self.live[s]][: len(self._queue)]

    def admit(self, slots: Sequence[int]) -> list[int]:
        """The next rows of the queue, which these slots take."""
        rows = [self._queue.popleft() for _ in slots]
        for row, slot in zip(rows, slots, strict=True):
            self.row[slot], self.live[slot], self.start[slot] = row, True, self.step
            self._waiting[self._prompt_index[row]] -= 1
        self.alive += len(rows)
        self._look_ahead()
        return rows

    def waits(self, row: int) -> bool:
        """Whether a row has no slot yet."""
        return row in self._queue

    def withdraw(self, row: int) -> bool:
        """Takes a row out of the queue; False where it does not wait."""
        if not self.waits(row):
            return False
        self._queue.remove(row)
        self._waiting[self._prompt_index[row]] -= 1
        return True

    def slot_of(self, row: int) -> int | None:
        """The live slot of a row that is in flight."""
        return next((s for s in self._live_slots() if self.row[s] == row), None)

    def awaited(self, prompt: int) -> bool:
        """Whether rows of the prompt still wait."""
        return self._waiting[prompt] > 0

    def compact(self) -> tuple[list[int], list[int]]:
        """Moves rows in flight to the front, so that a step computes fewer slots: from where, to where."""
        alive = self._live_slots()
        targets = [s for s in range(len(alive)) if not self.live[s]]
        sources = alive[len(alive) - len(targets) :]
        for old, new in zip(sources, targets, strict=True):
            self.row[new], self.live[new], self.start[new] = self.row[old], True, self.start[old]
            self.row[old], self.live[old] = -1, False
        self.used = len(alive)
        return sources, targets

    def spent(self) -> list[int]:
        """Live slots whose rows have emitted all they may."""
        if not self.alive or self.step < self._next_end:
            return []
        return [s for s in self._live_slots() if self._end(s) <= self.step]

    def still(self, slots: Sequence[int], rows: Sequence[int]) -> list[int]:
        """Those of the slots that are live and have the row that they had: `rows` of all slots, back then."""
        return [s for s in slots if self.live[s] and self.row[s] == rows[s]]

    def finish(self, slots: Sequence[int]) -> None:
        """The rows of these live slots emit nothing from here on."""
        for slot in slots:
            self.live[slot] = False
        self.alive -= len(slots)
        self._look_ahead()

    def emitted(self, slot: int) -> int:
        """Tokens of a live slot's row so far."""
        return self.step - self.start[slot]

    def longest(self) -> int:
        """Tokens of the longest completion in the slots in use; an early end is taken for none."""
        held = (s for s in range(self.used) if self.row[s] >= 0)
        return max(min(self.emitted(s), self._most[self.row[s]]) for s in held)

    def _look_ahead(self) -> None:
        """Refreshes what follows from the set of rows in flight."""
        live = self._live_slots()
        self._next_end = min((self._end(s) for s in live), default=0)
        ahead = (self._prompt_tokens[self.row[s]] - self.start[s] for s in live)
        self._columns_ahead = max(ahead, default=0)

    def _live_slots(self) -> list[int]:
        return [s for s in range(self.used) if self.live[s]]

    def _end(self, slot: int) -> int:
        return self.start[slot] + self._most[self.row[slot]]


def _longest_first(most: Sequence[int], prompt_index: Sequence[int]) -> list[int]:
    """The order in which rows enter the slots; rows of one prompt stay together where budgets are equal.

    A long row that starts last decodes alone at the end: on 16 slots, 32 requests of 8 to 128 tokens took
    243 steps in order of submission, 148 in this one.
    """
    return sorted(range(len(most)), key=lambda row: (-most[row], prompt_index[row]))
