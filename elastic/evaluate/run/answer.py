"""A chunk's completions, decoded and graded."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from elastic.budget import Budget, FinishReason
from elastic.evaluate.engines import Engine
from elastic.evaluate.report.segments import segments
from elastic.evaluate.run.plan import Cell, Chunk
from elastic.evaluate.sample import Sample
from elastic.models.threads import threads_for
from elastic.rewards.grading import grade
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.rollout.cuts import solutions_behind_cuts
from elastic.rollout.record.measure import measure
from elastic.sampling import Sampling, sample_seeds


def answer(
    engine: Engine, chunk: Chunk, sampling: Sampling, max_new_tokens: int | None, *, texts: bool
) -> list[Sample]:
    """The samples of a chunk, in the order of `Chunk.keys`.

    Args:
        engine: decodes.
        chunk: what to decode.
        sampling: how tokens are drawn; its seed is the run's.
        max_new_tokens: end of completions without a bounded budget.
        texts: whether samples keep their segments.

    Raises:
        ValueError: a reward other than 0, 1 and None; names the problem.
    """
    batches = [batch.to("cpu") for batch in _decode(engine, chunk, sampling, max_new_tokens)]
    grades = [_grades(batch, chunk) for batch in batches]
    return [
        sample
        for cell in chunk.task.cells
        for sample in _samples(batches[cell.batch], grades[cell.batch], chunk, cell, texts)
    ]


def _decode(
    engine: Engine, chunk: Chunk, sampling: Sampling, max_new_tokens: int | None
) -> Sequence[RolloutBatch]:
    task = chunk.task
    assert sampling.seed is not None  # `evaluate` sees to it
    seeds = sample_seeds(sampling.seed, chunk.numbers, chunk.samples)
    arguments: dict[str, Any] = {"sampling": sampling, "progress": False}
    begin = arguments | {"seeds": seeds, "add_special_tokens": task.data.add_special_tokens}
    prompts = task.prompts(chunk.numbers)
    model = getattr(engine, "model", None)
    with nullcontext() if model is None else threads_for(model, min(engine.max_rows, len(seeds))):
        if not task.cells[0].method.one_thought:
            (budget,) = task.budgets
            limit = limit_of(budget, max_new_tokens)
            return [engine.generate(prompts, budget, chunk.samples, max_new_tokens=limit, **begin)]
        assert isinstance(engine, RolloutEngine)  # `check_tasks` refuses others
        longest = longest_thought(task.budgets)
        limit = limit_of(longest, max_new_tokens)
        thoughts = engine.generate(prompts, longest, chunk.samples, max_new_tokens=limit, **begin)
        unbounded = any(budget.max_sampled is None for budget in task.budgets)
        limit = max_new_tokens if unbounded else None
        return solutions_behind_cuts(engine, thoughts, task.budgets, max_new_tokens=limit, **arguments)


def limit_of(budget: Budget, max_new_tokens: int | None) -> int | None:
    """`max_new_tokens` where the budget has no end of its own."""
    return max_new_tokens if budget.max_sampled is None else None


def longest_thought(budgets: Sequence[Budget]) -> Budget:
    """The budget of thoughts that all of the budgets cut; their own solutions are not looked at."""
    limits = [budget.thinking for budget in budgets]
    thinking = None if None in limits else max(limit for limit in limits if limit is not None)
    return replace(budgets[0], thinking=thinking, solution=1)


def _grades(batch: RolloutBatch, chunk: Chunk) -> list[float | None]:
    data, numbers = chunk.task.data, chunk.numbers
    grades = grade(batch, [data.problems[number].reference for number in numbers], data.reward)
    for row, value in enumerate(grades):
        if value not in (0, 1, None):
            problem = data.ids[numbers[row // chunk.samples]]
            raise ValueError(
                f"reward: expected 0 or 1, which can be counted, got {value} for '{problem}' of '{data.name}'"
            )
    return grades


def _samples(
    batch: RolloutBatch, grades: Sequence[float | None], chunk: Chunk, cell: Cell, texts: bool
) -> list[Sample]:
    facts, ids = measure(batch), chunk.task.data.ids
    thinking, solution, total = cell.budget
    return [
        Sample(
            data=chunk.task.data.name,
            method=cell.method.name,
            thinking=thinking,
            solution=solution,
            total=total,
            problem=ids[chunk.numbers[row // chunk.samples]],
            sample=row % chunk.samples,
            correct=value,
            tokens=int(facts.tokens[row]),
            thinking_tokens=int(facts.thinking_tokens[row]),
            solution_tokens=int(facts.solution_tokens[row]),
            cut=bool(facts.thinking_cut[row]),
            answered=bool(facts.answered[row]),
            finish_reason=FinishReason(int(batch.finish_reason[row])).text,
            segments=_segments(batch, row) if texts else (),
        )
        for row, value in enumerate(grades)
    ]


def _segments(batch: RolloutBatch, row: int) -> tuple[tuple[str, str], ...]:
    """(kind, text) runs of a row."""
    fields = (part[row].tolist() for part in (batch.tokens, batch.source, batch.phase))
    # Markers are special tokens of many vocabularies, and belong to the text.
    as_they_stand = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return tuple(
        (str(run.kind.value), batch.tokenizer.decode(list(run.tokens), **as_they_stand))
        for run in segments(*fields)
    )
