"""One thought, cut at several budgets, and the solutions behind each cut.

So k budgets cost one thought and k solutions. AnytimeReasoner (arXiv 2505.13438) trains and is evaluated like
this; with thoughts of one model and solutions of another it is Elastic Reasoning's segment swap
(arXiv 2505.05315).

R rows, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.budget.machine import compile_budgets
from elastic.rollout.engine import RolloutEngine
from elastic.rollout.record.batch import PER_TOKEN_FIELDS, RolloutBatch
from elastic.rollout.resume import check_alike, resume, seeds_of_samples
from elastic.sampling import Sampling


def solutions_behind_cuts(
    engine: RolloutEngine,
    thoughts: RolloutBatch,
    budgets: Sequence[Budget],
    *,
    samples_per_cut: int = 1,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    max_new_tokens: int | None = None,
    progress: bool | None = None,
) -> list[RolloutBatch]:
    """Cuts each thought where each budget would have, and draws solutions from there.

    A row is the one that `engine.generate` makes of the same prompt, budget and seed in one go, as far as
    logits do not round differently, if the engine also made the thought, by the same sampling. A thought that
    ended before the cut keeps its end, and its solutions are drawn anew from there, once for all budgets that
    differ in thinking alone.

    With `thoughts` of another engine this is the segment swap: the tokens up to the solution, with their
    logprobs, are those of its model, the solutions this engine's.

    Args:
        engine: draws the solutions; its markers, EOS ids and vocabulary are those of the thoughts.
        thoughts: R rows made under a budget at least as large as each of `budgets`, grace included, with the
            same notices and extensions: without a limit, say. What they have of solutions is not looked at.
        budgets: where to cut, and how many tokens a solution may have.
        samples_per_cut: solutions behind each cut.
        sampling: of the solutions; `Sampling()` by default.
        seeds: [R * samples_per_cut], the same under every budget; by default those of `resume`: the first
            sample has the seed of its thought.
        max_new_tokens: as for `engine.generate`, of the whole completion.
        progress: overrides the engine's.

    Returns:
        One batch per budget, of complete records with the prompts of `thoughts`: thought, forced tokens and
        solution. Row = row of `thoughts` * samples_per_cut + sample.

    Raises:
        TypeError, ValueError: as by `resume` and `cut_thoughts`; no budgets.
        OutOfContext, MemoryError, RuntimeError: as `engine.generate`.
    """
    if isinstance(budgets, Budget) or not budgets:
        raise ValueError(f"budgets: expected a list of at least one Budget, got {budgets!r}")
    if not isinstance(samples_per_cut, int) or isinstance(samples_per_cut, bool) or samples_per_cut < 1:
        raise ValueError(f"samples_per_cut: expected an integer from 1, got {samples_per_cut!r}")
    check_alike(engine, thoughts)
    thoughts = thoughts.to("cpu")
    if seeds is None:
        seeds = seeds_of_samples(thoughts, samples_per_cut)
    own = torch.as_tensor(seeds, dtype=torch.int64).cpu()
    if own.shape != (len(thoughts) * samples_per_cut,):
        raise ValueError(f"seeds: expected {len(thoughts) * samples_per_cut}, got shape {list(own.shape)}")
    cuts = [cut_thoughts(thoughts, budget, engine.tokenizer) for budget in budgets]
    keys = [key for cut, budget in zip(cuts, budgets, strict=True) for key in _keys(cut, budget)]
    which = {key: place for place, key in reversed(list(enumerate(keys)))}
    # Thought by thought: cuts of one are prefilled together, as far as they come into slots together.
    order = sorted(which, key=lambda key: (key[:2], which[key]))
    places, first = {key: place for place, key in enumerate(order)}, [which[key] for key in order]
    rows = [place % len(thoughts) for place in first]
    solved = resume(
        engine,
        RolloutBatch.cat(cuts)[first],
        [budgets[place // len(thoughts)] for place in first],
        samples_per_cut,
        sampling,
        seeds=own.view(-1, samples_per_cut)[rows].flatten(),
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    samples = torch.arange(samples_per_cut)
    of_key = torch.tensor([places[key] for key in keys])[:, None] * samples_per_cut + samples
    index = thoughts.prompt_index.repeat_interleave(samples_per_cut).to(solved.device)
    ended = thoughts.ended_at.repeat_interleave(samples_per_cut).to(solved.device)
    return [
        replace(
            batch,
            prompts=thoughts.prompts,
            prompt_index=index,
            ended_at=ended.where(batch.ended_at == ended, -1),
        )
        for batch in (solved[part.flatten()] for part in of_key.split(len(thoughts)))
    ]


def cut_thoughts(thoughts: RolloutBatch, budget: Budget, tokenizer: Any = None) -> RolloutBatch:
    """What the rows would have emitted under a smaller budget, up to the end of their thoughts.

    The budget machine reads each row until it would have emitted something else. So every rule holds: a cut
    inside a natural marker is left to be completed (R3), and grace, whole characters, notices and extensions
    are those that the row met.

    Args:
        thoughts: R rows made under a budget at least as large, see `solutions_behind_cuts`. A thought that
            something else has closed before the cut (an end marker, an EOS, a call from outside or a smaller
            budget) keeps its end. One that `max_new_tokens` or the context has ended is as long as a budget
            without a thinking limit allows; it goes on where `solutions_behind_cuts` has room for it.
        budget: that cuts.
        tokenizer: of the budget's texts; by default the batch's.

    Returns:
        [R] records that end where the closing text or the solution begins, finish reason LENGTH; a row that a
        total cap ends in its thought is done, and one that never thought has not begun.

    Raises:
        ValueError: a thought that has neither ended nor come to the cut, naming its row; or a budget that
            does not work with the markers.
    """
    thoughts = thoughts.to("cpu")
    machine = compile_budgets(
        [budget], thoughts.markers, tokenizer or thoughts.tokenizer, thoughts.eos_ids, thoughts.pad_id
    )[0]
    begin = ops.new_state(
        torch.zeros(len(thoughts), dtype=torch.int64),
        machine,
        phase=thoughts.initial_phase,
        thinking_used=thoughts.initial_thinking,
    )

    def read(lengths: Tensor, ended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of each row that the budget allows, its state behind them, and which rows still think."""
        ended = ended.where(ended <= lengths, -1)
        state, wrong = ops.replay(
            *(thoughts.tokens, lengths, begin, machine), source=thoughts.source, ended=ended
        )[2:]
        return lengths.where(wrong < 0, wrong), state, ops.state_phase(state) == Phase.THINKING

    ended = thoughts.ended_at
    kept, state, thinks = read((thoughts.phase < Phase.SOLUTION).sum(1), ended)
    # The token that ends a thought and opens something else (R18) belongs to the solution, and to the cut.
    kept, state, thinks = read(kept + (thinks & (kept < thoughts.lengths)), ended)
    # What was closed by another text, in place of an EOS (R6), is closed by this budget's.
    closed = thinks & (_at(thoughts.phase, kept) == Phase.CLOSING) & (budget.on_eos == "close")
    ended = kept.where(closed, ended)
    kept, state, thinks = read(kept, ended)
    if budget.thinking is None:  # nothing cuts here but `max_new_tokens` or the context
        thinks &= (kept < thoughts.lengths) | (thoughts.finish_reason != FinishReason.LENGTH)
    if thinks.any():
        unfinished = thinks.nonzero()[:, 0].tolist()
        used = int(ops.thinking_used(state)[unfinished[0]])
        raise ValueError(
            f"thoughts: row {unfinished[0]} has {used} thinking tokens; expected a thought that has ended or "
            f"has as many as {budget} allows, grace included, with the same notices and extensions"
        )
    return _first_tokens(thoughts, kept, state, ended.where(ended <= kept, -1))


def _at(values: Tensor, columns: Tensor) -> Tensor:
    """[R] of [R, T]: the value in a column of each row, 0 behind the last one."""
    return torch.nn.functional.pad(values, (0, 1)).gather(1, columns[:, None])[:, 0]


def _first_tokens(batch: RolloutBatch, kept: Tensor, state: Tensor, ended: Tensor) -> RolloutBatch:
    """The first tokens of each row, with what the state behind them says."""
    width = int(kept.max())
    behind = torch.arange(width) >= kept[:, None]
    fills = {"tokens": batch.pad_id, "source": int(Source.PAD), "phase": int(Phase.DONE)}
    reason = ops.finish_reason(state)
    return replace(
        batch,
        lengths=kept,
        thinking_tokens=ops.thinking_used(state).long(),
        solution_tokens=ops.solution_used(state).long(),
        thinking_cut=ops.thinking_cut(state),
        finish_reason=reason.where(reason != FinishReason.RUNNING, int(FinishReason.LENGTH)).to(torch.uint8),
        ended_at=ended,
        stop=(),
        kept=None,
        **{
            name: getattr(batch, name)[:, :width].masked_fill(behind, fills.get(name, 0))
            for name in PER_TOKEN_FIELDS
        },
    )


def _keys(cut: RolloutBatch, budget: Budget) -> list[tuple]:
    """What decides how each row goes on: behind the same thought, the thinking budget no longer does."""
    rest = tuple(getattr(budget, item.name) for item in fields(budget) if item.name != "thinking")
    thought = ((cut.phase >= Phase.THINKING) & (cut.phase <= Phase.NOTICE)).any(1)
    thought |= cut.initial_phase != Phase.OPENING
    return [
        (row, length, None if begun else budget.thinking, rest)
        for row, (length, begun) in enumerate(zip(cut.lengths.tolist(), thought.tolist(), strict=True))
    ]
