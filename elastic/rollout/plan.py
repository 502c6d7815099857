"""What a call of `RolloutEngine.generate` is going to do, checked before any of it is done.

R rows (completions), K prompts.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elastic.budget import Budget
from elastic.budget.machine import Machine, compile_budgets
from elastic.budget.markers import Markers
from elastic.rollout.encoding import encode_prompts
from elastic.rollout.limits import Limits
from elastic.rollout.needs import Needs
from elastic.rollout.pools import Pool, class_of_rows
from elastic.rollout.schedule import Schedule
from elastic.rollout.starts import PhaseName, Start, read_starts
from elastic.sampling import Sampling, row_seeds

_MAX_SEED = 2**63 - 1


class OutOfContext(ValueError):
    """A prompt, or a prompt with everything its budget allows, is longer than the model's context."""


@dataclass(frozen=True)
class Plan:
    """The rows of one call.

    Attributes:
        prompts: K lists of token ids.
        prompt_index: of each of the R rows.
        machine: the distinct budgets, compiled.
        budget_index: [R] int64, the machine's budget of each row.
        starts: K, where the rows of each prompt start.
        phases: [R] int32, the phase each row starts in.
        thinking_used: [R] int64, thinking tokens that count before its first one.
        most: of each row, the most tokens it emits before it is ended from outside.
        bounded: of each row, whether `most` is its budget's own bound (SPEC R5).
        seeds: of each row.
        run_seed: what they derive from; None where the caller gave them.
        sampling: how tokens are drawn.
    """

    prompts: list[list[int]]
    prompt_index: list[int]
    machine: Machine
    budget_index: Tensor
    starts: list[Start]
    phases: Tensor
    thinking_used: Tensor
    most: list[int]
    bounded: list[bool]
    seeds: list[int]
    run_seed: int | None
    sampling: Sampling

    @property
    def needs(self) -> Needs:
        """Of these rows."""
        lengths = [len(self.prompts[k]) for k in self.prompt_index]
        return Needs.of(lengths, self.most, self.bounded)

    def schedule(self, pools: Sequence[Pool], refill: int) -> Schedule:
        """Of these rows, none of which has begun."""
        lengths, needs = [len(prompt) for prompt in self.prompts], self.needs
        row_pool = class_of_rows(pools, needs)
        return Schedule(self.prompt_index, lengths, self.most, needs, pools, row_pool, refill)


def make_plan(
    prompts: Sequence[str | Sequence[int]],
    budget: Budget | Sequence[Budget] | None,
    samples_per_prompt: int,
    sampling: Sampling,
    max_new_tokens: int | None,
    seeds: Sequence[int] | Tensor | None,
    *,
    tokenizer: Any,
    markers: Markers,
    limits: Limits,
    add_special_tokens: bool | None = None,
    phase: PhaseName | Sequence[PhaseName | None] | None = None,
    thinking_used: int | Sequence[int] | Tensor | None = None,
) -> Plan:
    """Checks the arguments of `generate` against each other and against the model.

    Raises:
        TypeError, ValueError: naming the argument, its value and the limit.
        OutOfContext: a prompt, or a prompt and its budget, do not fit the context (SPEC R17); never a text of
            the budget that does not work with the markers (R4), which is a plain ValueError.
    """
    samples = _at_least_one("samples_per_prompt", samples_per_prompt)
    if max_new_tokens is not None:
        max_new_tokens = _at_least_one("max_new_tokens", max_new_tokens)
    if not isinstance(sampling, Sampling):
        raise TypeError(f"sampling: expected a Sampling, got {sampling!r}")
    ids = encode_prompts(prompts, tokenizer, limits.vocab, add_special_tokens)
    prompt_index = [k for k in range(len(ids)) for _ in range(samples)]
    budgets = _row_budgets(budget, len(ids), samples)
    starts = read_starts(prompts, ids, phase, thinking_used, markers, tokenizer)
    most, bounded = [], []
    cache: dict[tuple, tuple[int, bool]] = {}
    for row, k in enumerate(prompt_index):
        key = (budgets[row], len(ids[k]), starts[k])
        if key not in cache:
            where = f"prompt {k}"
            cache[key] = _most(
                budgets[row], len(ids[k]), starts[k], max_new_tokens, tokenizer, markers, limits, where
            )
        most.append(cache[key][0])
        bounded.append(cache[key][1])
    sampling = sampling if seeds is not None else sampling.seeded()
    machine, index = compile_budgets(budgets, markers, tokenizer, limits.eos_ids, limits.pad_id)
    return Plan(
        prompts=ids,
        prompt_index=prompt_index,
        machine=machine,
        budget_index=torch.as_tensor(index, dtype=torch.int64),
        starts=starts,
        phases=torch.tensor([int(starts[k].phase) for k in prompt_index], dtype=torch.int32),
        thinking_used=torch.tensor([starts[k].thinking_used for k in prompt_index], dtype=torch.int64),
        most=most,
        bounded=bounded,
        seeds=_row_seeds(seeds, sampling, len(prompt_index)),
        run_seed=None if seeds is not None else sampling.seed,
        sampling=sampling,
    )


def _at_least_one(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from error
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value!r}")
    return number


def _row_budgets(budget: Any, prompts: int, samples: int) -> list[Budget]:
    if budget is None:
        budget = Budget.unlimited()
    if isinstance(budget, Budget):
        return [budget] * (prompts * samples)
    if not isinstance(budget, Sequence) or not all(isinstance(b, Budget) for b in budget):
        raise TypeError(f"budget: expected a Budget or a list of them, got {budget!r}")
    if len(budget) == prompts:
        return [b for b in budget for _ in range(samples)]
    if len(budget) != prompts * samples:
        rows = f" or {prompts * samples} (one a row)" if samples > 1 else ""
        raise ValueError(f"budget: expected {prompts} (one a prompt){rows}, got {len(budget)}")
    return list(budget)


def _most(
    budget: Budget,
    prompt_tokens: int,
    start: Start,
    max_new_tokens: int | None,
    tokenizer: Any,
    markers: Markers,
    limits: Limits,
    where: str,
) -> tuple[int, bool]:
    """The most tokens a row emits, and whether that is its budget's own bound."""
    begun: dict[str, Any] = {"phase": start.phase, "thinking_used": start.thinking_used}
    # First, as it checks the budget's texts: a bad one is no matter of the context.
    bound = budget.max_tokens(markers, tokenizer, **begun)
    if limits.context is not None:
        try:
            budget.check_context(limits.context, prompt_tokens, markers, tokenizer, **begun)
        except ValueError as error:
            raise OutOfContext(f"{where}: {error}") from error
    room = None if limits.context is None else limits.context - prompt_tokens
    if bound is not None:
        if max_new_tokens is not None and max_new_tokens < bound:
            raise ValueError(
                f"max_new_tokens: expected at least {bound}, which {budget} may emit (its forced tokens "
                f"included), got {max_new_tokens}; use the budget alone, or a smaller one"
            )
        return bound, True
    outside = min(n for n in (max_new_tokens, room, 2**31 - 1) if n is not None)
    if max_new_tokens is None and room is None:
        raise ValueError(f"max_new_tokens: expected a number, as neither {budget} nor the model sets a limit")
    if budget.thinking is not None:
        # A limit that cuts the closing text, or leaves nothing behind it, is an error now (as in R14).
        least = replace(budget, solution=1).max_tokens(markers, tokenizer, **begun)
        if least is not None and outside < least:
            name = "max_new_tokens" if outside == max_new_tokens else "the context's room"
            raise OutOfContext(
                f"{where}: {name}: expected at least {least}, so that {budget} can close thinking and "
                f"answer, got {outside}"
            )
    return outside, False


def _row_seeds(seeds: Any, sampling: Sampling, rows: int) -> list[int]:
    if seeds is None:
        assert sampling.seed is not None  # `make_plan` drew one
        return row_seeds(sampling.seed, rows)
    values = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
    if len(values) != rows:
        raise ValueError(f"seeds: expected {rows}, one a row, got {len(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_SEED:
            raise ValueError(f"seeds: expected integers 0 .. 2^63-1, got {value!r}")
    return values
