"""What the engine is measured against: the same budgets with the `generate` of transformers.

`hf_generate` steers one `generate` call a batch with a logits processor; `two_calls` is the paper's way, a
call for the thinking and a second one that has thinking and closing text in its prompt. Both decode fixed
batches in order of submission, padded on the left, and end rows one by one through a stopping criterion.

`generate` applies top_k=50 unless told otherwise, so every sampling parameter is given. The budget machine
runs in the same C++ ops as in the engine: what differs is the decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from elastic import ops
from elastic.budget import Budget, Source
from elastic.budget.forced_text import forced_texts
from elastic.budget.machine import Machine, compile_budgets
from elastic.budget.markers import Markers
from elastic.sampling import Sampling


@dataclass(frozen=True)
class Request:
    """One row: a prompt that has opened thinking, and a budget with both limits."""

    prompt: list[int]
    budget: Budget


def hf_generate(
    model: Any,
    requests: Sequence[Request],
    markers: Markers,
    sampling: Sampling,
    *,
    batch_rows: int,
    eos_ids: Sequence[int],
    pad_id: int = 0,
    tokenizer: Any = None,
) -> list[list[int]]:
    """Completions from `generate` with a budget processor, `batch_rows` rows at a time.

    `generate` ends a row at EOS in any phase, so budgets need on_eos="stop".

    Returns:
        Token ids of each completion, EOS included.

    Raises:
        ValueError: a budget that this method cannot enforce.
    """
    device = next(model.parameters()).device
    completions = []
    for batch in _batches(requests, batch_rows):
        budgets = [request.budget for request in batch]
        if any(budget.on_eos != "stop" for budget in budgets):
            raise ValueError('budget: generate ends rows at EOS, expected on_eos="stop"')
        bounds = [budget.max_tokens(markers, tokenizer) for budget in budgets]
        most = max((bound for bound in bounds if bound is not None), default=0)
        if None in bounds:
            raise ValueError(f"budget: expected both limits, got {budgets[bounds.index(None)]}")
        machine, index = compile_budgets(budgets, markers, tokenizer, eos_ids, pad_id)
        machine = machine.to(device)
        state = ops.new_state(index.to(device), machine)
        spent = _Spent(state, machine)
        prompts = [request.prompt for request in batch]
        made = _generate(model, prompts, most, sampling, spent, eos_ids, pad_id, _Force(state, machine))
        lengths = spent.lengths.tolist()
        completions += [tokens[:length] for tokens, length in zip(made, lengths, strict=True)]
    return completions


def two_calls(
    model: Any,
    requests: Sequence[Request],
    markers: Markers,
    sampling: Sampling,
    *,
    batch_rows: int,
    eos_ids: Sequence[int],
    pad_id: int = 0,
    tokenizer: Any = None,
) -> list[list[int]]:
    """Completions by the paper's method: think, append the closing text, prompt again for the solution.

    An EOS while thinking is taken off and the closing text put in its place, which is on_eos="close".

    Returns:
        Token ids of each completion, forced tokens and EOS included.

    Raises:
        ValueError: a budget that this method cannot enforce, or markers with further ends (R18), which it
            does not see.
    """
    if markers.ends:
        raise ValueError(f"markers: two calls know the end marker alone, got ends={markers.ends}")
    for request in requests:
        plain = Budget(request.budget.thinking, request.budget.solution, closing=request.budget.closing)
        if request.budget != plain or request.budget.max_sampled is None:
            raise ValueError(f"budget: expected thinking, solution and closing alone, got {request.budget}")
    completions = []
    for batch in _batches(requests, batch_rows):
        prompts = [request.prompt for request in batch]
        budgets = [request.budget for request in batch]
        # What two calls cannot do: a marker of several tokens that the cap cuts apart is closed once more.
        thinking = _capped(
            model, prompts, [b.thinking or 0 for b in budgets], sampling, markers.end, eos_ids, pad_id
        )
        opened = []
        for tokens, budget in zip(thinking, budgets, strict=True):
            closing = forced_texts(
                budget, markers, tokenizer or markers.tokenizer, frozenset(eos_ids)
            ).closing
            ended = tuple(tokens[-len(markers.end) :]) == markers.end
            body = tokens[:-1] if tokens and tokens[-1] in eos_ids else tokens
            opened.append(tokens if ended else [*body, *closing])
        again = [[*prompt, *tokens] for prompt, tokens in zip(prompts, opened, strict=True)]
        solutions = _capped(model, again, [b.solution or 0 for b in budgets], sampling, None, eos_ids, pad_id)
        completions += [[*tokens, *solution] for tokens, solution in zip(opened, solutions, strict=True)]
    return completions


def _batches(requests: Sequence[Request], rows: int) -> list[Sequence[Request]]:
    return [requests[i : i + rows] for i in range(0, len(requests), rows)]


class _Force(LogitsProcessor):
    def __init__(self, state: Tensor, machine: Machine):
        self.state, self.machine = state, machine

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        ops.force_logits_(scores, self.state, self.machine)
        return scores


class _Spent(StoppingCriteria):
    """Steps the machine by the token in the last column, and ends the rows that are done."""

    def __init__(self, state: Tensor, machine: Machine):
        self.state, self.machine = state, machine
        self.lengths = torch.zeros(len(state), dtype=torch.int64, device=state.device)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        source = ops.budget_step_(input_ids[:, -1].clone(), self.state, self.machine)
        self.lengths += source != Source.PAD
        return ops.is_done(self.state)


class _Capped(StoppingCriteria):
    """Ends each row at its own number of new tokens, or behind a marker."""

    def __init__(self, columns: Tensor, marker: tuple[int, ...] | None):
        self.columns = columns
        self.marker = None if marker is None else torch.tensor(marker, device=columns.device)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        ended = input_ids.shape[1] >= self.columns
        if self.marker is not None:
            tail = input_ids[:, -len(self.marker) :]
            ended = ended | (tail == self.marker).all(dim=1)
        return ended


def _capped(
    model: Any,
    prompts: list[list[int]],
    caps: list[int],
    sampling: Sampling,
    marker: tuple[int, ...] | None,
    eos_ids: Sequence[int],
    pad_id: int,
) -> list[list[int]]:
    """At most `caps[i]` new tokens of each prompt; rows with none are left out of the call."""
    rows = [i for i, cap in enumerate(caps) if cap > 0]
    result: list[list[int]] = [[] for _ in prompts]
    if rows:
        longest = max(len(prompts[i]) for i in rows)
        device = next(model.parameters()).device
        columns = torch.tensor([longest + caps[i] for i in rows], device=device)
        ended = _Capped(columns, marker)
        most = max(caps[i] for i in rows)
        made = _generate(model, [prompts[i] for i in rows], most, sampling, ended, eos_ids, pad_id)
        for i, tokens in zip(rows, made, strict=True):
            # Rows that ended go on as padding until the last one has: cut there.
            result[i] = _until(tokens[: caps[i]], marker, eos_ids)
    return result


def _until(tokens: list[int], marker: tuple[int, ...] | None, eos_ids: Sequence[int]) -> list[int]:
    for end in range(1, len(tokens) + 1):
        if tokens[end - 1] in eos_ids or (marker and tuple(tokens[:end][-len(marker) :]) == marker):
            return tokens[:end]
    return tokens


def _generate(
    model: Any,
    prompts: list[list[int]],
    most: int,
    sampling: Sampling,
    ended: StoppingCriteria,
    eos_ids: Sequence[int],
    pad_id: int,
    processor: LogitsProcessor | None = None,
) -> list[list[int]]:
    """One `generate` call; the new columns of each row, padding behind its end included."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    greedy = sampling.temperature == 0
    chosen: dict[str, Any] = {"do_sample": False}
    if not greedy:
        chosen = {
            "do_sample": True,
            "temperature": float(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": float(sampling.top_p),
            "min_p": float(sampling.min_p) if sampling.min_p else None,
        }
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=most,
            eos_token_id=list(eos_ids),
            pad_token_id=pad_id,
            logits_processor=LogitsProcessorList([processor] if processor else []),
            stopping_criteria=StoppingCriteriaList([ended]),
            **chosen,
        )
    return [row.tolist() for row in out[:, longest:]]
