"""How many slots of which length: the classes that a call's rows are decoded in. Host only.

R rows, S slots.

Slots as long as the longest row waste what shorter rows leave free. Sorted by length, the rows need S slots
of falling lengths: the profile. Up to four pools cover it, each as long as its longest slot. A row may use a
longer slot than it needs, never a shorter one, so the profile gives longer rows as many slots as their share
of all tokens: then longer and shorter rows are through at about the same time, as in one pool.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastic.rollout.schedule.needs import Needs

MOST_POOLS = 4  # attention runs once per pool and layer
_WORTH = 1 / 16  # a further pool saves at least this share of one pool's cells
_MORE_STEPS = 1 / 32  # pools add at most this share of one pool's steps, with early ends and without
_SHARES = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0)  # tried: slots of longer rows, relative to their share of tokens
_LENGTHS = 64  # tried at most
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Pool:
    """Slots of one length.

    Attributes:
        slots: at least 1.
        columns: cache columns of each.
    """

    slots: int
    columns: int


def cells(pools: Sequence[Pool]) -> int:
    """Cache columns of all slots together: what memory is proportional to."""
    return sum(pool.slots * pool.columns for pool in pools)


def length_classes(needs: Needs, slots: int, least_cells: int = 0) -> list[Pool]:
    """The pools that a call's rows are decoded in, shortest first.

    Args:
        needs: of the rows.
        slots: S, at most R.
        least_cells: that a further pool has to save; below, it is not worth the extra calls.

    Returns:
        At most four pools of S slots together. The last is the only one whose rows may grow. With rows of
        equal lengths, or little to save, there is one.
    """
    one = [Pool(slots, max(needs.columns))]
    least = max(least_cells, 1, cells(one) * _WORTH)
    if cells(one) - sum(_profile(needs, slots, 1.0)) < least:
        return one
    covers = [cover for share in _SHARES for cover in _covers(_profile(needs, slots, share))]
    ends = [needs.tokens, _early_ends(needs.tokens)]
    most_steps = [_steps(one, needs, own) * (1 + _MORE_STEPS) for own in ends]
    for pools in sorted(covers, key=lambda pools: cells(pools) + len(pools) * least):
        few = (_steps(pools, needs, own) <= most for own, most in zip(ends, most_steps, strict=True))
        if len(pools) == 1 or all(few):
            return pools
    return one


def class_of_rows(pools: Sequence[Pool], needs: Needs) -> list[int]:
    """The shortest pool that holds each row; rows that grow belong to the last."""
    last = len(pools) - 1
    return [
        last if grows else next(p for p, pool in enumerate(pools) if pool.columns >= columns)
        for columns, grows in zip(needs.columns, needs.grows, strict=True)
    ]


def most_slots(fits: Callable[[int], bool], slots: int) -> int:
    """The most slots that fit, 0 for none; `slots` do not."""
    some, too_many = 0, slots
    while too_many - some > 1:
        middle = (some + too_many) // 2
        some, too_many = (middle, too_many) if fits(middle) else (some, middle)
    return some


def _profile(needs: Needs, slots: int, share: float) -> list[int]:
    """[S] columns that slots need, longest first.

    The rows down to a length get slots by their share of all tokens, and no more than they are.
    """
    longest = max(needs.columns)
    rows = sorted(
        (
            (longest if grows else columns, tokens)
            for columns, tokens, grows in zip(needs.columns, needs.tokens, needs.grows, strict=True)
        ),
        reverse=True,
    )
    if slots == len(rows):
        return [columns for columns, _ in rows]
    total = sum(tokens for _, tokens in rows)
    profile: list[int] = []
    for count, (columns, so_far) in enumerate(
        zip((c for c, _ in rows), accumulate(t for _, t in rows), strict=True), start=1
    ):
        needed = min(count, slots, -(-int(share * slots * so_far) // total))
        profile += [columns] * (needed - len(profile))
    return profile


def _covers(profile: Sequence[int]) -> Iterator[list[Pool]]:
    """The pools of fewest cells that cover a profile: one, two, and so on.

    Dynamic programming over the distinct lengths, of which at most so many are tried.
    """
    lengths = sorted(set(profile))
    lengths = lengths[:: -(-len(lengths) // _LENGTHS)] if len(lengths) > _LENGTHS else lengths
    lengths = lengths if lengths[-1] == profile[0] else [*lengths, profile[0]]
    ends = [sum(columns <= length for columns in profile) for length in lengths]  # slots up to a length
    # Of the slots up to length i: cells with so many pools, and the lengths of these.
    best = [(length * end, [i]) for i, (length, end) in enumerate(zip(lengths, ends, strict=True))]
    for count in range(1, min(MOST_POOLS, len(lengths)) + 1):
        chosen = best[-1][1]
        begins = [0, *(ends[i] for i in chosen)]
        yield [Pool(ends[i] - begin, lengths[i]) for i, begin in zip(chosen, begins, strict=False)]
        best = [
            min(
                ((best[j][0] + length * (end - ends[j]), [*best[j][1], i]) for j in range(count - 1, i)),
                default=best[i],
            )
            for i, (length, end) in enumerate(zip(lengths, ends, strict=True))
        ]


def _early_ends(tokens: Sequence[int]) -> list[int]:
    """Lengths of rows that end early, each anywhere: fractions of what they may emit, spread evenly."""
    return [1 + int(n * (row * _GOLDEN % 1)) for row, n in enumerate(tokens)]


def _steps(pools: Sequence[Pool], needs: Needs, ends: Sequence[int]) -> int:
    """Steps that a `Schedule` takes whose rows end after so many tokens each."""
    queues = [deque[int]() for _ in pools]
    for row, p in sorted(enumerate(class_of_rows(pools, needs)), key=lambda pair: -needs.tokens[pair[0]]):
        queues[p].append(ends[row])
    free = [(0, p) for p, pool in enumerate(pools) for _ in range(pool.slots)]  # a heap: since when
    last = 0
    while free:
        step, p = heapq.heappop(free)
        queue = next((queues[q] for q in range(p, -1, -1) if queues[q]), None)
        if queue is not None:
            end = step + queue.popleft()
            last = max(last, end)
            heapq.heappush(free, (end, p))
    return last
