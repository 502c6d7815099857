"""V1 + any course of events: rows come, go, move, swap, are preempted and draw in vain, and none changes."""

from __future__ import annotations

import gc
import random
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from elastic.budget import Budget
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.v1 import V1Budgets
from tests.integrations.vllm.v2_steps import SLOTS, THINKING, Settings, logits_after, params, plain
from tests.rollout.small_models import VOCAB

TOKENS = 30
BUDGETS = (
    Budget(5, 6),
    Budget(4, 5, closing="\nabc</think>\nde"),
    Budget(0, 4),
    Budget(30, 8, closing="ab</think>cd"),
    Budget(20, 5, min_thinking=15, max_extensions=4, extension="abcd"),
    Budget(12, 5, notices=((3, "xyz"), (6, "\nq"))),
    Budget(4, 5, grace=6, boundary=("a", "e", "i", "o")),
    Budget.vanilla(9),
    RequestBudget(Budget(6, 6), end_markers=("z",)),
    None,
)
Direction = Enum("Direction", "UNIDIRECTIONAL SWAP")


class Batch:
    """vLLM's persistent batch as far as a logits processor sees it.

    Attributes:
        rows: the requests, by row; None is an empty row.
    """

    def __init__(self) -> None:
        self.budgets = V1Budgets(Settings(), "cpu")  # type: ignore[arg-type]
        self.rows: list[Any] = [None] * SLOTS
        self._update: dict[str, list[Any]] = {"removed": [], "added": [], "moved": []}

    def remove(self, row: int) -> None:
        self._update["removed"].append(row)
        self.rows[row] = None

    def add(self, request: Any) -> None:
        """A request takes the first empty row, which counts as replaced and not as removed."""
        row = self.rows.index(None)
        if row in self._update["removed"]:
            self._update["removed"].remove(row)
        self._update["added"].append((row, request.params, THINKING, request.output))
        self.rows[row] = request

    def swap(self, row: int, other: int) -> None:
        self._update["moved"].append((row, other, Direction.SWAP))
        self.rows[row], self.rows[other] = self.rows[other], self.rows[row]

    def condense(self) -> None:
        """The last requests move into empty rows."""
        while None in self.rows and any(self.rows[self.rows.index(None) :]):
            empty = self.rows.index(None)
            last = max(row for row, request in enumerate(self.rows) if request)
            self._update["moved"].append((last, empty, Direction.UNIDIRECTIONAL))
            self.rows[empty], self.rows[last] = self.rows[last], None

    def step(self, in_vain: set[Any]) -> None:
        """Every row draws a token; what those `in_vain` draw is thrown away."""
        self.condense()
        update, self._update = self._update, {"removed": [], "added": [], "moved": []}
        self.budgets.update_state(SimpleNamespace(**update) if any(update.values()) else None)
        requests = [request for request in self.rows if request]
        if not requests:
            return
        logits = torch.stack([logits_after([*THINKING, *request.output]) for request in requests])
        wanted = logits.clone()
        self.budgets.apply(logits)
        for row, request in enumerate(requests):
            if request.params.asked is None:
                assert torch.equal(logits[row], wanted[row])  # left alone
            else:
                assert int((logits[row] > -torch.inf).sum()) == 1
            request.in_vain = request.name in in_vain
            if not request.in_vain:
                request.output.append(int(logits[row].argmax()))


@pytest.mark.parametrize("seed", range(12))
def test_any_course_of_events_gives_the_tokens_of_plain_decoding(seed):
    chance, batch = random.Random(seed), Batch()
    waiting = [
        SimpleNamespace(name=i, params=params(chance.choice(BUDGETS), seed=i), output=[]) for i in range(14)
    ]
    every = list(waiting)
    for _ in range(600):
        for row, request in enumerate(batch.rows):
            if request and len(request.output) >= TOKENS:
                batch.remove(row)
            elif request and chance.random() < 0.05:  # preempted; sometimes its last token is lost, too
                batch.remove(row)
                waiting.insert(0, request)
                if chance.random() < 0.5 and not request.in_vain:
                    request.output = request.output[:-1]  # a list of its own, as under async scheduling
        while waiting and None in batch.rows and chance.random() < 0.7:
            batch.add(waiting.pop(0))
        batch.condense()
        running = [row for row, request in enumerate(batch.rows) if request]
        if len(running) > 1 and chance.random() < 0.2:
            batch.swap(*chance.sample(running, 2))
        batch.step({request.name for request in every if chance.random() < 0.1})
        if not waiting and not any(batch.rows):
            break
    for request in every:
        assert len(request.output) == TOKENS
        if request.params.asked is not None:
            assert request.output == plain(request.params, THINKING, TOKENS), request.params.asked
    batch.step(set())
    assert all(not table.users for table in batch.budgets._tables.open)
    assert sorted(batch.budgets._free) == list(range(SLOTS))


def test_requests_that_take_each_others_rows_in_one_step_are_still_known():
    batch, seeds = Batch(), []
    batch.budgets._settings.seed = lambda sampling: seeds.append(sampling.seed) or sampling.seed
    requests = [SimpleNamespace(name=i, params=params(Budget(5, 6), seed=i), output=[]) for i in range(3)]
    for request in requests:
        batch.add(request)
    batch.step(set())
    for row in range(3):
        batch.remove(row)
    for request in reversed(requests):
        batch.add(request)
    batch.step(set())
    assert seeds == [0, 1, 2]  # a request without a seed of its own would go on with another


def test_broken_logits_end_their_row_and_no_other():
    batch = Batch()
    for seed in range(2):
        batch.add(SimpleNamespace(name=seed, params=params(Budget(5, 6), seed=seed), output=[]))
    batch.step(set())
    logits = torch.stack([torch.full((VOCAB,), torch.nan), logits_after([*THINKING, *batch.rows[1].output])])
    batch.budgets.update_state(None)
    batch.budgets.apply(logits)
    assert int(logits[0].argmax()) == 1  # EOS
    assert int(logits[1].argmax()) == plain(batch.rows[1].params, THINKING, 2)[1]


def test_what_budgets_hold_does_not_grow_with_their_number():
    batch, chance = Batch(), random.Random(0)

    def requests(number):
        for seed in range(number):
            budget = Budget(chance.randint(0, 10**6), chance.randint(1, 10**6), grace=seed % 2)
            batch.add(SimpleNamespace(name=seed, params=params(budget, seed=seed), output=[]))
            batch.step(set())
            batch.remove(0)
        gc.collect()
        return len(gc.get_objects())

    requests(50)
    tables = [table.machine.tables.data_ptr() for table in batch.budgets._tables.open]
    assert abs(requests(500) - requests(500)) < 50
    assert [table.machine.tables.data_ptr() for table in batch.budgets._tables.open] == tables
