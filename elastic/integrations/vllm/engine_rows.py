"""The rows of an engine's call, as vLLM's first runner decodes them: what they may do, and what they did.

The engine and vLLM are in one process. So a request only carries the number of its row, and the processor
looks up the rest here and writes down here what it has drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget, Markers, Phase, Source
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.table import BudgetTables
from elastic.integrations.vllm.v1 import Group, V1Budgets
from elastic.rollout.outcome import Outcome
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.plan import Plan
from elastic.rollout.record.buffer import RecordBuffer
from elastic.sampling import SampleOutput, Sampling

ROW = "rollout_row"  # in a request's `extra_args`
_FIRST_COLUMNS = 256


@dataclass(frozen=True)
class RowBudget(RequestBudget):
    """The budget of a row.

    Attributes:
        row: its number in the plan.
    """

    row: int = -1


class CallRows:
    """The rows of the call that runs, for `RecordedBudgets`.

    Args:
        tokenizer: of the budgets' texts.
        markers: of all rows.
        limits: of the model.
        rows: most rows of a batch.
    """

    def __init__(self, tokenizer: Any, markers: Markers, limits: Limits, rows: int) -> None:
        self.rows = rows
        self._tokenizer, self._markers, self._limits = tokenizer, markers, limits
        self._plan: Plan | None = None
        self._record: RecordBuffer | None = None

    @property
    def plan(self) -> Plan:
        """Of the call that runs."""
        assert self._plan is not None  # vLLM has requests of a call alone
        return self._plan

    @contextmanager
    def of(self, plan: Plan) -> Iterator[None]:
        """A block in which requests are rows of this call."""
        self._plan, self._record = plan, None
        try:
            yield
        finally:
            self._plan = self._record = None

    def outcome(self) -> Outcome:
        """What the rows of the call that runs have emitted, on the CPU.

        Raises:
            RuntimeError: nothing was drawn, or the logits of a row held NaN.
        """
        record, plan = self._record, self.plan
        if record is None:
            raise RuntimeError("vLLM drew no token: it does not call the budgets' processor")
        if record.fields()[3].isnan().any():
            row, column = record.first_nan()
            raise RuntimeError(
                f"generate: the logits of row {row} (prompt {plan.prompt_index[row]}) hold NaN at its token "
                f"{column}"
            )
        tokens, source, *others = fields = [field.cpu() for field in record.fields()]
        # What ended a request behind a spent budget is no part of its row.
        tokens = tokens.masked_fill(source == Source.PAD, self._limits.pad_id)
        lengths, rows = (source != Source.PAD).sum(dim=1), len(plan.most)
        state, wrong = ops.replay(tokens, lengths, plan.state, plan.machine, source=source)[2:]
        assert (wrong < 0).all()  # the same transition function has emitted them
        listed, kept = list(range(rows)), record.kept(list(range(rows)), fields)
        return Outcome(listed, [tokens, source, *others], state, [-1] * rows, [None] * rows, kept)

    def request(self, params: Any) -> RowBudget:
        """The budget of a request, and the row that it is of."""
        row, plan = params.extra_args[ROW], self.plan
        budget = plan.machine.budgets[int(plan.budget_index[row])]
        assert isinstance(budget, Budget)  # as the plan was given
        return RowBudget(
            budget,
            phase=Phase(int(plan.phases[row])),
            thinking_used=int(plan.thinking_used[row]),
            row=row,
        )

    def seed(self, params: Any) -> int:
        """Of the draws of a request."""
        return self.plan.seeds[params.extra_args[ROW]]

    def sampling(self, params: Any) -> Sampling:
        """How a request's tokens are drawn."""
        return self.plan.samplings[params.extra_args[ROW]]

    @property
    def most_kept(self) -> int:
        """Ids that filters left, of those that are recorded of a token."""
        return max(sampling.recorded for sampling in self.plan.samplings)

    def markers(self, ends: tuple[str, ...]) -> Markers:
        """Those of the engine, further ends included."""
        return self._markers

    def tables(self, rows: int, device: torch.device | str) -> BudgetTables:
        """Tables for so many different budgets at a time."""
        eos = self._limits.eos_ids
        # What finished rows emit ends their requests, if anything does.
        pad = eos[0] if eos else self._limits.pad_id
        return BudgetTables(self._tokenizer, eos, pad, rows, device)

    def drawn(self, rows: list[int], positions: list[int], out: SampleOutput) -> None:
        """Writes down what some rows emit; a token drawn again takes the place of the one thrown away.

        Args:
            rows: B numbers.
            positions: tokens that each row has.
            out: B tokens.
        """
        most = self.plan.most
        fields = (out.tokens, out.source, out.phase, out.logprobs, out.full_logprobs)
        kept = (out.kept_counts, out.kept_ids)
        log = [field[None] for field in (*fields, *kept) if field is not None]
        if self._record is None:
            size = len(most), min(_FIRST_COLUMNS, max(most)), max(most)
            self._record = RecordBuffer(*size, self._limits.pad_id, out.tokens.device)
        # vLLM may draw for a row that has all its tokens, before it has seen that.
        own = [row if position < most[row] else -1 for row, position in zip(rows, positions, strict=True)]
        self._record.write(log, own, positions, min(max(positions) + 1, max(most)))


class RecordedBudgets(V1Budgets):
    """`V1Budgets` for the rows of an engine, which writes down what it draws.

    Args:
        rows: of the engine's calls.
        device: of the logits.
    """

    def __init__(self, rows: CallRows, device: torch.device | str) -> None:
        super().__init__(rows, device)
        self._call_rows = rows

    def _enter(self, index: int, params: Any, prompt: list[int] | None, output: list[int]) -> None:
        super()._enter(index, params, prompt, output)
        # vLLM is told to take the largest logit, which costs the least where one is left.
        slot, sampling = self._rows[index].slot, self._call_rows.sampling(params)
        floats = [sampling.temperature, sampling.top_p, sampling.min_p]
        self._floats[:, slot] = torch.tensor(floats, dtype=torch.float64)
        self._top_k[slot] = sampling.top_k

    def _draw(self, group: Group, logits: Tensor, positions: list[int]) -> SampleOutput:
        self._most_kept = self._call_rows.most_kept
        drawn = super()._draw(group, logits, positions)
        numbers = [row.request.row for row in group.rows if isinstance(row.request, RowBudget)]
        self._call_rows.drawn(numbers, positions, drawn)
        return drawn
