"""Where rows start: as their prompts say (SPEC R9), as a chat says, or as the caller states (R19)."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import START_PHASES, Budget, FinishReason, Phase
from elastic.budget.marker_text import thinking_tokens
from elastic.budget.markers import Markers
from elastic.budget.token_text import added_tokens, encode
from elastic.rollout.plan.prompts import ChatPrompt
from elastic.rollout.record.batch import RolloutBatch

PhaseName = str | Phase  # "opening", "thinking" or "solution"

_NAMES = "'opening', 'thinking' or 'solution'"


@dataclass(frozen=True)
class Start:
    """Where the rows of one prompt start.

    Attributes:
        phase: OPENING, THINKING or SOLUTION.
        thinking_used: thinking tokens that count before the first one.
        stated: whether the caller said so; else the prompt was read.
    """

    phase: Phase
    thinking_used: int
    stated: bool


def read_starts(
    prompts: Sequence[Any],
    ids: Sequence[Sequence[int]],
    phase: PhaseName | Sequence[PhaseName | None] | None,
    thinking_used: int | Sequence[int] | Tensor | None,
    markers: Markers,
    tokenizer: Any,
) -> list[Start]:
    """Where the rows of each prompt start.

    Args:
        prompts: as given.
        ids: as encoded.
        phase, thinking_used: as in `RolloutEngine.generate`.
        markers: that find the phase where it is not stated.
        tokenizer: of the texts.

    Raises:
        TypeError, ValueError: naming the argument, the prompt, its value and the limit.
    """
    phases = _stated_phases(phase, len(prompts))
    used = _thinking_used(thinking_used, len(prompts))
    starts = []
    for k, prompt in enumerate(prompts):
        own = phases[k]
        if own is None:
            chat = isinstance(prompt, ChatPrompt)
            own = _phase_of_chat(prompt, markers, tokenizer) if chat else markers.initial_phase(ids[k])
        if own == Phase.OPENING and used[k]:
            raise ValueError(
                f"thinking_used: prompt {k}: expected 0, as its thinking has not begun (opening), got "
                f'{used[k]}; pass phase="thinking" if the prompt ends inside a thought'
            )
        starts.append(Start(own, used[k], phases[k] is not None))
    return starts


def _stated_phases(phase: Any, prompts: int) -> list[Phase | None]:
    if phase is None or isinstance(phase, (str, int)):
        return [None if phase is None else _phase(phase, "phase")] * prompts
    if not isinstance(phase, Sequence):
        raise TypeError(f"phase: expected {_NAMES}, or a list of them, one per prompt, got {phase!r}")
    if len(phase) != prompts:
        raise ValueError(f"phase: expected {prompts}, one per prompt, got {len(phase)}")
    return [None if own is None else _phase(own, f"phase: prompt {k}") for k, own in enumerate(phase)]


def _phase(value: Any, where: str) -> Phase:
    if isinstance(value, Phase) and value in START_PHASES.values():
        return value
    if isinstance(value, str) and not isinstance(value, Phase) and value in START_PHASES:
        return START_PHASES[value]
    raise ValueError(f"{where}: expected {_NAMES}, got {value!r}")


def _thinking_used(value: Any, prompts: int) -> list[int]:
    if value is None:
        return [0] * prompts
    if isinstance(value, Tensor) and value.dim():
        value = value.tolist()
    if not isinstance(value, Sequence):
        return [_count(value, "thinking_used")] * prompts
    if len(value) != prompts:
        raise ValueError(f"thinking_used: expected {prompts}, one per prompt, got {len(value)}")
    return [_count(own, f"thinking_used: prompt {k}") for k, own in enumerate(value)]


def _count(value: Any, where: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{where}: expected an integer, got {value!r}") from None
    if isinstance(value, bool) or not 0 <= number < 2**31:
        raise ValueError(f"{where}: expected 0 or more tokens, got {value!r}")
    return number


def _phase_of_chat(prompt: ChatPrompt, markers: Markers, tokenizer: Any) -> Phase:
    """The phase that a row is in which has written the assistant's message itself."""
    begun = markers.initial_phase(encode(tokenizer, prompt.removesuffix(prompt.prefill)))
    tokens = torch.tensor([encode(tokenizer, prompt.prefill)], dtype=torch.int64)
    machine = Budget.unlimited().compile(markers, tokenizer, eos_ids=())
    state = ops.new_state([0], machine, phase=[begun])
    state = ops.replay(tokens, torch.tensor([tokens.shape[1]]), state, machine)[2]
    return Phase(int(ops.state_phase(state)))


def ambiguous_prompts(
    ids: Sequence[Sequence[int]], starts: Sequence[Start], markers: Markers, without: Collection[int] = ()
) -> str | None:
    """A warning where prompts hold a start marker with text behind it and nobody said what that means.

    Args:
        without: prompts that have no rows.
    """
    found = [
        k
        for k, (prompt, start) in enumerate(zip(ids, starts, strict=True))
        if not start.stated and start.phase == Phase.OPENING and k not in without
        if markers.opened_before(prompt)
    ]
    if not found:
        return None
    return (
        f"prompts: {len(found)} of {len(ids)} (first: prompt {found[0]}) hold a start marker with text "
        "behind it, so they may end inside a thought; they are taken as not thinking yet, and their thinking "
        'budget waits for another start marker. Pass phase="thinking" if they end inside a thought (and '
        'thinking_used for what was thought), phase="opening" if they do not'
    )


def never_thought(batch: RolloutBatch, starts: Sequence[Start], budgets: Sequence[Budget]) -> str | None:
    """A warning where rows with a thinking budget might have opened thinking, and no row of the call did.

    A row that the model answers without a thought is nothing to speak of beside others that think. If none
    does, the prompts or the markers are most likely not those of the model.

    Args:
        batch: what the call made.
        starts: one per prompt.
        budgets: one per row.
    """
    index, reasons = batch.prompt_index.tolist(), batch.finish_reason.tolist()
    found = sorted(
        {
            k
            for k, reason, budget in zip(index, reasons, budgets, strict=True)
            if budget.thinking and starts[k].phase == Phase.OPENING and not starts[k].stated
            if reason != FinishReason.CANCELLED  # which might have
        }
    )
    thought = (batch.phase >= Phase.THINKING) & (batch.phase <= Phase.NOTICE)
    if not found or bool(thought.any()):
        return None
    markers = batch.markers
    start = markers.start_text or list(markers.start)
    return (
        f"prompts: {len(found)} of {len(starts)} (first: prompt {found[0]}) do not open thinking, and no "
        f"completion did: the thinking budget did nothing. End the prompts with {start!r} (a chat template "
        "may do it), or pass the markers of this model" + _seen_markers(batch)
    )


def _seen_markers(batch: RolloutBatch) -> str:
    """Tokens in prompts and completions that look like other thinking markers than those of the batch."""
    tokenizer, markers = batch.tokenizer, batch.markers
    ours = {*markers.start_pattern.places, *markers.ends_pattern.places}
    ids = {*batch.tokens.unique().tolist(), *(token for prompt in batch.prompts for token in prompt)} - ours
    seen = {str(token) for i, token in added_tokens(tokenizer).items() if i in ids}
    names = [text for text in thinking_tokens(tokenizer) if text in seen]
    return f"; seen were {', '.join(names)}" if names else ""
