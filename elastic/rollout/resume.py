"""Rows that go on from what they have emitted (SPEC R10), as if they had never been interrupted.

R rows, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.rollout.engine import RolloutEngine
from elastic.rollout.plan.plan import OutOfContext, Plan, make_plan
from elastic.rollout.record.batch import PER_TOKEN_FIELDS, RolloutBatch
from elastic.rollout.record.joining import same_vocabulary
from elastic.sampling import Sampling, row_seed


def resume(
    engine: RolloutEngine,
    begun: RolloutBatch,
    budget: Budget | Sequence[Budget],
    samples_per_row: int = 1,
    sampling: Sampling | None = None,
    *,
    seeds: Sequence[int] | Tensor | None = None,
    max_new_tokens: int | None = None,
    progress: bool | None = None,
) -> RolloutBatch:
    """Completes rows that have begun.

    The budget machine reads their tokens back, so a row goes on in its very state: inside a forced text,
    behind a part of a marker, with the notices and extensions that are left. Its random numbers go on too.
    With the row's own seed and the model that began it, it becomes the row that `engine.generate` makes in
    one go, as far as the model's logits do not round differently.

    Args:
        engine: of the model that goes on, with the markers, EOS ids and vocabulary of `begun`.
        begun: R rows. Those that their budget or `max_new_tokens` has ended stay as they are; stop strings
            are not sought.
        budget: of all rows, or one per row, which allows what they have emitted.
        samples_per_row: completions of each row: row = row of `begun` * samples_per_row + sample.
        sampling: how tokens are drawn; `Sampling()` by default.
        seeds: [R * samples_per_row]; by default the row's own for its first sample, and seeds that derive
            from it for the others.
        max_new_tokens: as for `engine.generate`, of the whole completion.
        progress: overrides the engine's.

    Returns:
        Complete records on the engine's device. What had begun keeps its tokens and logprobs. They have no
        kept sets.

    Raises:
        TypeError, ValueError: bad arguments, a record of other markers, EOS ids or another vocabulary, or a
            row that its budget does not allow; before any work.
        OutOfContext, MemoryError, RuntimeError: as `engine.generate`.
    """
    check_alike(engine, begun)
    begun = begun.to("cpu")
    plan = make_plan(
        *([begun.prompt(row) for row in range(len(begun))], budget, samples_per_row),
        *(sampling, max_new_tokens, seeds_of_samples(begun, samples_per_row) if seeds is None else seeds),
        tokenizer=engine.tokenizer,
        markers=engine.markers,
        limits=engine.limits,
        phase=[Phase(phase) for phase in begun.initial_phase.tolist()],
        thinking_used=begun.initial_thinking,
    )
    plan = _behind(begun, plan, samples_per_row)
    rows = torch.arange(len(begun)).repeat_interleave(samples_per_row)
    start = replace(begun[rows], prompts=begun.prompts, prompt_index=begun.prompt_index[rows])
    start = replace(start, seeds=torch.tensor(plan.seeds), run_seed=None, stop=(), dropped={}, kept=None)
    ended = ops.is_done(plan.state)
    full = ~ended & (torch.tensor(plan.most) == 0)
    start = replace(start, finish_reason=start.finish_reason.masked_fill(full, int(FinishReason.LENGTH)))
    going = (~ended & ~full).nonzero()[:, 0].tolist()
    if going:
        with engine.begin(plan.select(going), progress) as stream:
            while stream.advance() is not None:
                pass
        start = _joined(start, going, stream.batch.to("cpu"))
    return replace(start, tokenizer=engine.tokenizer).to(engine.device)


def check_alike(engine: RolloutEngine, batch: RolloutBatch) -> None:
    """Checks that an engine can go on with rows of a record.

    Raises:
        ValueError: no rows, other markers, other EOS ids, or another vocabulary.
    """
    if len(batch) == 0:
        raise ValueError("rows: expected at least one, got an empty batch")
    if batch.markers != engine.markers:
        raise ValueError("rows: made with other markers than the engine's")
    if set(batch.eos_ids) != set(engine.limits.eos_ids):
        raise ValueError(
            f"rows: made with eos_ids {list(batch.eos_ids)}, the engine has {list(engine.limits.eos_ids)}"
        )
    if batch.tokenizer is not None and not same_vocabulary(batch.tokenizer, engine.tokenizer):
        raise ValueError("rows: made with a tokenizer of another vocabulary than the engine's")
    highest = int(batch.tokens.max()) if batch.tokens.numel() else 0
    if highest >= engine.limits.vocab:
        raise ValueError(f"rows: expected token ids below {engine.limits.vocab}, got {highest}")


def seeds_of_samples(begun: RolloutBatch, samples: int) -> list[int]:
    """[R * samples]: a row's own seed, with which its first sample is what it would have become, and others.

    The others derive from the row's own.
    """
    own = begun.seeds.tolist()
    return [row_seed(seed, sample) if sample else seed for seed in own for sample in range(samples)]


def _behind(begun: RolloutBatch, plan: Plan, samples: int) -> Plan:
    """The plan, with every row behind the tokens that it has emitted.

    Raises:
        ValueError: a row that its budget does not allow.
        OutOfContext: a row has more tokens than `max_new_tokens` or the context allow.
    """
    rows = torch.arange(len(begun)).repeat_interleave(samples)
    state, mismatch = ops.replay(
        *(begun.tokens[rows], begun.lengths[rows], plan.state, plan.machine),
        source=begun.source[rows],
        ended=begun.ended_at[rows],
    )[2:]
    budgets = [plan.machine.budgets[i] for i in plan.budget_index.tolist()]
    lengths = begun.lengths.tolist()
    for row, (wrong, budget) in enumerate(zip(mismatch.tolist(), budgets, strict=True)):
        if wrong >= 0:
            token = int(begun.tokens[row // samples, wrong])
            raise ValueError(
                f"rows: row {row // samples}, position {wrong}: no row under {budget} emits token {token} "
                "there"
            )
    used = [lengths[row // samples] for row in range(len(plan.most))]
    left = [most - n for most, n in zip(plan.most, used, strict=True)]
    for row, (rest, done) in enumerate(zip(left, ops.is_done(state).tolist(), strict=True)):
        if rest < 0 and not done:
            raise OutOfContext(
                f"max_new_tokens: expected at least {used[row]}, the tokens that row {row // samples} has "
                f"already, got {plan.most[row]}"
            )
    tokens = begun.tokens.tolist()
    prompts = [begun.prompt(row) + tokens[row][:n] for row, n in enumerate(lengths)]
    return replace(plan, prompts=prompts, state=state, begun=used, most=left)


def _joined(start: RolloutBatch, going: Sequence[int], rest: RolloutBatch) -> RolloutBatch:
    """Rows with what some of them emitted further.

    Args:
        going: which ones: row i of `rest` goes on with row going[i].
    """
    index, begun = torch.tensor(going), start.lengths[torch.tensor(going)]
    width = max(int(start.lengths.max()), int((begun + rest.lengths).max()))
    columns = begun[:, None] + torch.arange(rest.tokens.shape[1])
    padding = {"tokens": rest.pad_id, "source": int(Source.PAD), "phase": int(Phase.DONE)}
    there = torch.arange(start.tokens.shape[1]) < start.lengths[:, None]
    values: dict[str, Any] = {}
    for name in PER_TOKEN_FIELDS:
        first, then, fill = getattr(start, name), getattr(rest, name), padding.get(name, 0)
        whole = first.new_full((len(start), first.shape[1] + then.shape[1]), fill)
        whole[:, : first.shape[1]] = first.masked_fill(~there, fill)
        whole[index] = whole[index].scatter(1, columns, then)
        values[name] = whole[:, :width]
    for name in ("thinking_tokens", "solution_tokens", "thinking_cut", "finish_reason"):
        values[name] = getattr(start, name).index_copy(0, index, getattr(rest, name))
    values["lengths"] = start.lengths.index_add(0, index, rest.lengths)
    return replace(start, pad_id=rest.pad_id, **values)
