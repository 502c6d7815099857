"""Which row decodes in which slot, and until when: the half of the decode loop that asks no device.

R rows, K prompts, S slots of which the first n are in use.

Slots lie in pools by length (`pools.py`). Those in use are numbered pool by pool: the first n_0 are in pool
0, the next n_1 in pool 1, and so on; they are the first ones of their pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastic.rollout.schedule.needs import Needs
    from elastic.rollout.schedule.pools import Pool


class Schedule:
    """Rows wait in a queue, slots take them, finished rows give their slot to the next.

    The host knows where every row stands without asking the device, because each row in flight emits one
    token per step. What it cannot know is when a row ends early: that it is told (`finish`).

    Args:
        prompt_index: of each row, its prompt.
        prompt_tokens: of each prompt, its length.
        most: of each row, the most tokens it emits.
        needs: of the rows.
        pools: S slots together, shortest first.
        row_pool: of each row, the shortest pool whose slots hold it.
        refill: free slots that start a refill, or a compaction once the queue is empty.
        bucket: rounds up how many slots of a pool a compaction leaves in use for so many rows, where steps
            are made for few numbers of slots. Those left over are free.

    Attributes:
        counts: n_p of each pool.
        row: of each slot, -1 for none; a finished row stays until the slot is reused.
        live: of each slot, whether its row still emits.
        start: of each slot, the step at which its row emits its first token.
        step: steps taken.
        pools: as given; the last one's columns are those it begins with.
        first_tokens: of a completion, to begin with.
        most_tokens, most_columns: that the longest row may need.
    """

    def __init__(
        self,
        prompt_index: Sequence[int],
        prompt_tokens: Sequence[int],
        most: Sequence[int],
        needs: Needs,
        pools: Sequence[Pool],
        row_pool: Sequence[int],
        refill: int,
        bucket: Callable[[int], int] = int,
    ):
        self._prompt_index, self._most, self._refill, self._bucket = prompt_index, most, refill, bucket
        self._prompt_tokens = [prompt_tokens[k] for k in prompt_index]
        self._queues: list[deque[int]] = [deque() for _ in pools]
        # In one slot the order costs nothing, so rows come as they were submitted.
        several = sum(pool.slots for pool in pools) > 1
        for row in _longest_first(most, prompt_index) if several else range(len(most)):
            self._queues[row_pool[row]].append(row)
        self._waiting = [0] * len(prompt_tokens)
        for k in prompt_index:
            self._waiting[k] += 1
        self.pools = tuple(pools)
        self.counts = [pool.slots for pool in pools]
        slots = self.used
        self._refills = [-(-refill * pool.slots // slots) for pool in pools]
        self.row = [-1] * slots
        self.live = [False] * slots
        self._alive = [0] * len(self.pools)
        self.start = [0] * slots
        self.step = 0
        self._next_end = 0  # earliest step at which a row in flight has emitted all it may
        self._columns_ahead = 0  # columns needed at a step, minus the step
        self.first_tokens, self.most_tokens = max(needs.tokens), max(most)
        self.most_columns = max(needs.most_columns)

    @property
    def used(self) -> int:
        """n, slots in use."""
        return sum(self.counts)

    @property
    def alive(self) -> int:
        """How many slots are live."""
        return sum(self._alive)

    @property
    def busy(self) -> bool:
        """Whether any row waits or emits."""
        return self.alive > 0 or any(self._queues)

    @property
    def columns(self) -> int:
        """Cache columns that the next forward reads: one more than a row in flight writes to at most."""
        return min(self.step + self._columns_ahead, self.most_columns)

    @property
    def sparse(self) -> bool:
        """Whether so many slots are free, and no row waits for them, that a compaction is worth it."""
        if self.used == self.alive:
            return False
        free = sum(count - self._kept(p) for p, count in enumerate(self.counts))
        return free >= min(self._refill, max(1, self.used // 8))

    def refill(self) -> list[int]:
        """The slots that rows are to be admitted to; none where too few are free."""
        taken: list[int] = []
        if self.used > self.alive and any(self._ready(p) for p in range(len(self.pools))):
            for p, slots in enumerate(self._slots()):
                free = [s for s in slots if not self.live[s]]
                taken += free[: self._rows_for(p) - len(taken)]
        return taken

    def admit(self, slots: Sequence[int]) -> list[int]:
        """The next rows of the queue, which these slots, in ascending order, take."""
        rows = []
        for slot in slots:
            pool = self._pool(slot)
            row = self._next_row(pool)
            self._alive[pool] += 1
            self.row[slot], self.live[slot], self.start[slot] = row, True, self.step
            self._waiting[self._prompt_index[row]] -= 1
            rows.append(row)
        self._look_ahead()
        return rows

    def waits(self, row: int) -> bool:
        """Whether a row has no slot yet."""
        return any(row in queue for queue in self._queues)

    def withdraw(self, row: int) -> bool:
        """Takes a row out of the queue; False where it does not wait."""
        queue = next((queue for queue in self._queues if row in queue), None)
        if queue is None:
            return False
        queue.remove(row)
        self._waiting[self._prompt_index[row]] -= 1
        return True

    def slot_of(self, row: int) -> int | None:
        """The live slot of a row that is in flight."""
        return next((s for s in self._live_slots() if self.row[s] == row), None)

    def awaited(self, prompt: int) -> bool:
        """Whether rows of the prompt still wait."""
        return self._waiting[prompt] > 0

    def compact(self) -> tuple[list[int], list[int]]:
        """Moves rows in flight to the front of their pools, so that a step computes fewer slots.

        A pool that rows wait for keeps its slots.

        Returns:
            From which slots, by their numbers before, to which, by those after. Where a pool in front has
            shrunk, rows get another number that keep their place in their pool.
        """
        order: list[int] = []
        for p, slots in enumerate(self._slots()):
            front, behind = list(slots[: self._kept(p)]), slots[self._kept(p) :]
            gaps = [i for i, s in enumerate(front) if not self.live[s]]
            for i, s in zip(gaps, (s for s in behind if self.live[s]), strict=False):
                front[i] = s
            self.counts[p] = len(front)
            order += front
        left = len(self.row) - len(order)
        self.row = [self.row[s] for s in order] + [-1] * left
        self.live = [self.live[s] for s in order] + [False] * left
        self.start = [self.start[s] for s in order] + [0] * left
        moved = [(old, new) for new, old in enumerate(order) if old != new]
        return [old for old, _ in moved], [new for _, new in moved]

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
            self._alive[self._pool(slot)] -= 1
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

    # Pools

    def _slots(self) -> list[range]:
        """The slots in use of each pool."""
        ends = list(accumulate(self.counts))
        return [range(end - count, end) for end, count in zip(ends, self.counts, strict=True)]

    def _free(self, pool: int) -> int:
        return self.counts[pool] - self._alive[pool]

    def _pool(self, slot: int) -> int:
        return next(p for p, slots in enumerate(self._slots()) if slot in slots)

    def _rows_for(self, pool: int) -> int:
        """Rows that wait and that the pool's slots hold: its own and those of shorter pools."""
        return sum(len(queue) for queue in self._queues[: pool + 1])

    def _kept(self, pool: int) -> int:
        """Slots that a compaction leaves a pool."""
        if self._rows_for(pool):
            return self.counts[pool]
        return min(self._bucket(self._alive[pool]), self.counts[pool])

    def _next_row(self, pool: int) -> int:
        return next(queue for queue in reversed(self._queues[: pool + 1]) if queue).popleft()

    def _ready(self, pool: int) -> bool:
        """Whether enough of the pool's slots are free for a refill."""
        rows, free = self._rows_for(pool), self._free(pool)
        return rows > 0 and free > 0 and (not self._alive[pool] or free >= min(self._refills[pool], rows))


def _longest_first(most: Sequence[int], prompt_index: Sequence[int]) -> list[int]:
    """The order in which rows enter the slots; rows of one prompt stay together where budgets are equal.

    A long row that starts last decodes alone at the end: on 16 slots, 32 requests of 8 to 128 tokens took
    243 steps in order of submission, 148 in this one.
    """
    return sorted(range(len(most)), key=lambda row: (-most[row], prompt_index[row]))
