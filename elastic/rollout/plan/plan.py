"""What a call of `RolloutEngine.generate` is going to do, checked before any of it is done.

R rows (completions), K prompts.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget
from elastic.budget.machine import Machine, compile_budgets
from elastic.budget.markers import Markers
from elastic.rollout.plan.encoding import encode_prompts
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.row_values import of_rows, seeds_of, stop_strings
from elastic.rollout.plan.starts import PhaseName, Start, read_starts
from elastic.rollout.schedule.needs import Needs
from elastic.rollout.schedule.pools import Pool, class_of_rows
from elastic.rollout.schedule.schedule import Schedule
from elastic.sampling import Sampling

T = TypeVar("T")
OverContext = Literal["raise", "drop"]


class OutOfContext(ValueError):
    """A prompt, or a prompt with everything its budget allows, is longer than the model's context."""


class _TooFewNewTokens(OutOfContext):
    """`max_new_tokens` is too small for a budget, which is no fault of the prompt."""


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
        state: [R, 8] int32, the budget machine's, of each row before the first token that the call emits.
        begun: of each row, tokens of its completion that the call finds in `prompts`: the row goes on with
            the random numbers behind them.
        most: of each row, the most tokens it emits before it is ended from outside.
        bounded: of each row, whether `most` is its budget's own bound (SPEC R5).
        seeds: of each row.
        run_seed: what they derive from; None where the caller gave them, or where rows have several.
        samplings: of each row, how its tokens are drawn.
        stop: strings that end a row.
        dropped: prompts that have no rows, as they do not fit the context, and why.
    """

    prompts: list[list[int]]
    prompt_index: list[int]
    machine: Machine
    budget_index: Tensor
    starts: list[Start]
    phases: Tensor
    thinking_used: Tensor
    state: Tensor
    begun: list[int]
    most: list[int]
    bounded: list[bool]
    seeds: list[int]
    run_seed: int | None
    samplings: list[Sampling]
    stop: tuple[str, ...]
    dropped: dict[int, str]

    @cached_property
    def needs(self) -> Needs:
        """What these rows need of the KV cache."""
        lengths = [len(self.prompts[k]) for k in self.prompt_index]
        return Needs.of(lengths, self.most, self.bounded)

    def select(self, rows: Sequence[int]) -> "Plan":
        """Some of the rows; all prompts keep their numbers."""

        def take(values: list[T]) -> list[T]:
            return [values[row] for row in rows]

        index = list(rows)
        return replace(
            self,
            prompt_index=take(self.prompt_index),
            budget_index=self.budget_index[index],
            phases=self.phases[index],
            thinking_used=self.thinking_used[index],
            state=self.state[index],
            begun=take(self.begun),
            most=take(self.most),
            bounded=take(self.bounded),
            seeds=take(self.seeds),
            samplings=take(self.samplings),
        )

    def schedule(self, pools: Sequence[Pool], refill: int, bucket: Callable[[int], int] = int) -> Schedule:
        """A schedule of these rows, none of which has begun."""
        lengths, needs = [len(prompt) for prompt in self.prompts], self.needs
        row_pool = class_of_rows(pools, needs)
        return Schedule(self.prompt_index, lengths, self.most, needs, pools, row_pool, refill, bucket)


def make_plan(
    prompts: Sequence[str | Sequence[int]],
    budget: Budget | Sequence[Budget] | None,
    samples_per_prompt: int,
    sampling: Sampling | Sequence[Sampling] | None,
    max_new_tokens: int | None,
    seeds: Sequence[int] | Tensor | None,
    *,
    tokenizer: Any,
    markers: Markers,
    limits: Limits,
    add_special_tokens: bool | None = None,
    phase: PhaseName | Sequence[PhaseName | None] | None = None,
    thinking_used: int | Sequence[int] | Tensor | None = None,
    stop: str | Sequence[str] | None = None,
    over_context: OverContext = "raise",
) -> Plan:
    """Checks the arguments of `generate` against each other and against the model.

    Raises:
        TypeError, ValueError: naming the argument, its value and the limit.
        OutOfContext: a prompt, or a prompt and its budget, do not fit the context (SPEC R17), or none does
            where they may be dropped; never a text of the budget that does not work with the markers (R4),
            which is a plain ValueError.
    """
    samples = _at_least_one("samples_per_prompt", samples_per_prompt)
    if max_new_tokens is not None:
        max_new_tokens = _at_least_one("max_new_tokens", max_new_tokens)
    if over_context not in ("raise", "drop"):
        raise ValueError(f"over_context: expected 'raise' or 'drop', got {over_context!r}")
    stops = stop_strings(stop)
    ids = encode_prompts(prompts, tokenizer, limits.vocab, add_special_tokens)
    budget = Budget.unlimited() if budget is None else budget
    sampling = Sampling() if sampling is None else sampling
    budgets = of_rows("budget", Budget, budget, len(ids), samples)
    samplings = of_rows("sampling", Sampling, sampling, len(ids), samples)
    starts = read_starts(prompts, ids, phase, thinking_used, markers, tokenizer)
    all_seeds, run_seed = seeds_of(seeds, samplings)
    needs = [(own, len(ids[row // samples]), starts[row // samples]) for row, own in enumerate(budgets)]
    distinct = dict.fromkeys(needs)  # in order, for the error that is raised first
    known = {need: _most_or_why(*need, max_new_tokens, tokenizer, markers, limits) for need in distinct}
    most = [known[need] for need in needs]
    dropped = _dropped(most, samples, over_context)
    # A prompt goes with all its rows, so that groups stay whole; those of the others keep their seeds.
    rows = [row for row in range(len(budgets)) if row // samples not in dropped]
    bounds = [bound for row in rows if not isinstance(bound := most[row], OutOfContext)]  # of all of them
    machine, index = compile_budgets(
        [budgets[row] for row in rows], markers, tokenizer, limits.eos_ids, limits.pad_id
    )
    prompt_index = [row // samples for row in rows]
    budget_index = torch.as_tensor(index, dtype=torch.int64)
    phases = torch.tensor([int(starts[k].phase) for k in prompt_index], dtype=torch.int32)
    used = torch.tensor([starts[k].thinking_used for k in prompt_index], dtype=torch.int64)
    return Plan(
        prompts=ids,
        prompt_index=prompt_index,
        machine=machine,
        budget_index=budget_index,
        starts=starts,
        phases=phases,
        thinking_used=used,
        state=ops.new_state(budget_index, machine, phase=phases, thinking_used=used),
        begun=[0] * len(rows),
        most=[tokens for tokens, _ in bounds],
        bounded=[own for _, own in bounds],
        seeds=[all_seeds[row] for row in rows],
        run_seed=run_seed,
        samplings=[samplings[row] for row in rows],
        stop=stops,
        dropped=dropped,
    )


def _at_least_one(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from error
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value!r}")
    return number


def _dropped(
    most: Sequence[tuple[int, bool] | OutOfContext], samples: int, over_context: OverContext
) -> dict[int, str]:
    """The prompts to be dropped, each with the reason: one of its rows does not fit."""
    dropped: dict[int, str] = {}
    for row, found in enumerate(most):
        if isinstance(found, OutOfContext):
            if over_context == "raise" or isinstance(found, _TooFewNewTokens):
                raise OutOfContext(f"prompt {row // samples}: {found}") from found
            dropped.setdefault(row // samples, str(found))
    if len(dropped) * samples == len(most):
        raise OutOfContext(f"prompts: none of {len(dropped)} fits the context; prompt 0: {dropped[0]}")
    return dropped


def _most_or_why(*arguments: Any) -> tuple[int, bool] | OutOfContext:
    try:
        return _most(*arguments)
    except OutOfContext as error:
        return error


def _most(
    budget: Budget,
    prompt_tokens: int,
    start: Start,
    max_new_tokens: int | None,
    tokenizer: Any,
    markers: Markers,
    limits: Limits,
) -> tuple[int, bool]:
    """The most tokens that a row emits, and whether that is its budget's own bound."""
    begun: dict[str, Any] = {"phase": start.phase, "thinking_used": start.thinking_used}
    # First, as it checks the budget's texts: a bad one is no matter of the context.
    bound = budget.max_tokens(markers, tokenizer, **begun)
    if limits.context is not None:
        try:
            budget.check_context(limits.context, prompt_tokens, markers, tokenizer, **begun)
        except ValueError as error:
            raise OutOfContext(str(error)) from error
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
        # A limit that cuts the closing text, or leaves nothing behind it, is an error here (as in R14).
        least = replace(budget, solution=1).max_tokens(markers, tokenizer, **begun)
        if least is not None and outside < least:
            least_text = f"expected at least {least}, so that {budget} can close thinking and answer"
            if outside == max_new_tokens:
                raise _TooFewNewTokens(f"max_new_tokens: {least_text}, got {outside}")
            raise OutOfContext(f"the context's room: {least_text}, got {outside}")
    return outside, False
