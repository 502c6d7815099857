"""`replay`: what each token of finished sequences was under a budget, whichever engine wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.budget.eos import EosIds
from elastic.budget.machine import compile_budgets
from elastic.budget.markers import Markers
from elastic.rollout.record.batch import RolloutBatch


@dataclass(frozen=True, eq=False)
class Annotation:
    """Tokens with what they were. R rows, T tokens of the longest.

    Attributes:
        tokens: [R, T] int64, padded as given or with the padding id.
        lengths: [R] int64.
        source: [R, T] uint8 of `Source`, PAD behind the length.
        phase: [R, T] uint8 of `Phase`, DONE behind the length.
        thinking_tokens: [R] int64, thinking tokens that count, without those of a marker: the sampled ones
            and `thinking_used`.
        solution_tokens: [R] int64, sampled solution tokens, EOS included.
        thinking_cut: [R] bool, whether closing tokens were forced.
        finish_reason: [R] uint8 of `FinishReason`; LENGTH where the tokens end before the budget does.
        state: [R, 8] int32, the state of each row behind its last token.
    """

    tokens: Tensor
    lengths: Tensor
    source: Tensor
    phase: Tensor
    thinking_tokens: Tensor
    solution_tokens: Tensor
    thinking_cut: Tensor
    finish_reason: Tensor
    state: Tensor


def replay(
    tokens: Any,
    budget: Budget | Sequence[Budget],
    markers: Markers,
    starts_in_thinking: bool | Sequence[bool] = True,
    *,
    tokenizer: Any = None,
    eos_ids: EosIds = None,
    source: Any = None,
    lengths: Sequence[int] | Tensor | None = None,
    initial_phase: Sequence[int] | Tensor | None = None,
    thinking_used: int | Sequence[int] | Tensor | None = None,
    ended: Sequence[int] | Tensor | None = None,
) -> Annotation:
    """Annotates finished sequences: phase and source per token, lengths, cut flags.

    An EOS that was replaced by F (R6), or an early end marker by the extension (R11), leaves no trace in the
    ids: a model may have sampled the same tokens. The recorded `source` tells them apart; without it such
    tokens read as sampled, and a sequence in which they overrun a budget contradicts it.

    Args:
        tokens: token ids of the completions, without prompts and padding: a list of lists, one list for a
            single row, or [R, T] int64 with `lengths`. Or a rollout batch, which brings its sources, lengths
            and EOS ids along, and how its rows began and were ended.
        budget: the budget of all rows, or one per row.
        markers: the model's markers.
        starts_in_thinking: whether the prompt had opened the thinking block (R9), of all rows or of each.
        tokenizer: for budgets with texts; the markers' own by default.
        eos_ids: ids that end a sequence. None for those of the batch, or the tokenizer's; an empty list for
            none: then rows end by their budgets alone.
        source: the sources that the tokens were recorded with, in the same shape.
        lengths: tokens of each row, where `tokens` is a padded tensor.
        initial_phase: phase of each row before its first token, instead of `starts_in_thinking`.
        thinking_used: thinking tokens that counted before the first one (R19), of all rows or of each.
        ended: tokens of each row in front of which its thinking was ended from outside (R22); -1 for never.

    Raises:
        ValueError: a row that no engine can have written under its budget, naming row and position; or a
            budget, marker or length that is illegal.
    """
    outside = None
    if isinstance(tokens, RolloutBatch):
        batch = tokens
        source = batch.source if source is None else source
        lengths = batch.lengths if lengths is None else lengths
        eos_ids = batch.eos_ids if eos_ids is None else eos_ids
        initial_phase = batch.initial_phase if initial_phase is None else initial_phase
        thinking_used = batch.initial_thinking if thinking_used is None else thinking_used
        ended = batch.ended_at if ended is None else ended
        outside = _ends_from_outside(batch)
        tokens = batch.tokens
    padded, lengths = _padded(tokens, lengths)
    rows = padded.shape[0]
    budgets = [budget] * max(rows, 1) if isinstance(budget, Budget) else list(budget)
    if len(budgets) != max(rows, 1):
        raise ValueError(f"budget: expected one or {rows} budgets, one per row, got {len(budgets)}")
    machine, index = compile_budgets(budgets, markers, tokenizer, eos_ids)
    used = thinking_used.cpu() if isinstance(thinking_used, Tensor) else thinking_used
    phases = _phases(initial_phase, starts_in_thinking, rows)
    state = ops.new_state(index[:rows], machine, phase=phases, thinking_used=used)
    hints = None
    if source is not None:
        hints = _padded(source, lengths)[0].to(torch.uint8)
        if hints.shape != padded.shape:
            raise ValueError(f"source: expected shape {list(padded.shape)}, got {list(hints.shape)}")
    phase, read, state, mismatch = ops.replay(
        *(padded, lengths, state, machine),
        source=hints,
        ended=None if ended is None else torch.as_tensor(ended).to("cpu", torch.int64),
    )
    for row, position in enumerate(mismatch.tolist()):
        if position >= 0:
            hint = "" if hints is None else f" (recorded as {Source(int(hints[row, position])).name})"
            raise ValueError(
                f"tokens: row {row}, position {position}: no row under {budgets[row]} emits token "
                f"{int(padded[row, position])}{hint} there"
            )
    finish = ops.finish_reason(state)
    finish = torch.where(finish == int(FinishReason.RUNNING), int(FinishReason.LENGTH), finish)
    if outside is not None:
        finish = torch.where(outside > 0, outside, finish)
    return Annotation(
        tokens=padded,
        lengths=lengths,
        source=read,
        phase=phase,
        thinking_tokens=ops.thinking_used(state).long(),
        solution_tokens=ops.solution_used(state).long(),
        thinking_cut=ops.thinking_cut(state),
        finish_reason=finish.to(torch.uint8),
        state=state,
    )


def _ends_from_outside(batch: Any) -> Tensor:
    """[R] int32, why rows ended that were cancelled or wrote a stop string, which no budget knows; else 0."""
    reason = batch.finish_reason.to("cpu", torch.int32)
    last = (batch.lengths - 1).clamp(min=0)[:, None]
    if batch.tokens.shape[1] == 0:
        return torch.where(reason == FinishReason.CANCELLED, reason, 0)
    eos = torch.tensor(batch.eos_ids, dtype=torch.int64)
    by_eos = torch.isin(batch.tokens.gather(1, last)[:, 0].cpu(), eos)
    by_string = (reason == FinishReason.STOP) & ~by_eos & bool(batch.stop)
    return torch.where(by_string | (reason == FinishReason.CANCELLED), reason, 0)


def _phases(
    initial_phase: Sequence[int] | Tensor | None, starts_in_thinking: bool | Sequence[bool], rows: int
) -> Tensor:
    if initial_phase is not None:
        name, phases = "initial_phase", torch.as_tensor(initial_phase).to("cpu", torch.int32)
    else:
        name, opened = "starts_in_thinking", torch.as_tensor(starts_in_thinking).cpu()
        opened = opened.expand(rows) if opened.dim() == 0 else opened
        phases = torch.where(opened, int(Phase.THINKING), int(Phase.OPENING)).to(torch.int32)
    if phases.shape != (rows,):
        raise ValueError(f"{name}: expected {rows} values, one per row, got shape {list(phases.shape)}")
    return phases


def _padded(values: Any, lengths: Sequence[int] | Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows as one tensor on the CPU, and their lengths."""
    if not isinstance(values, Tensor):
        rows = [list(row) for row in values] if values and isinstance(values[0], Iterable) else [list(values)]
        if len(values) == 0:
            rows = []
        own = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        longest = max(own.tolist(), default=0)
        padded = torch.zeros(len(rows), longest, dtype=torch.int64)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return padded, own
    padded = values.to("cpu", torch.int64)
    padded = (padded[None] if padded.dim() == 1 else padded).contiguous()
    if lengths is None:
        raise ValueError("lengths: expected the tokens of each row beside a padded tensor, got None")
    return padded, torch.as_tensor(lengths).to("cpu", torch.int64).contiguous()
