"""Several weighted reward functions as the reward of a run, with one that says what is correct.

Import it by its full name: as `elastic.rewards.grading`, it needs the rollout record.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elastic.data import Problem
from elastic.rewards.call import EventLoop, Function, Given, Values, all_values_of, values_of
from elastic.rewards.functions import ANSWER, asked_by
from elastic.rewards.grading import grade
from elastic.rewards.sample import samples_of
from elastic.rollout import RolloutBatch


class Graded(NamedTuple):
    """What a batch of R rows got from F functions; NaN where a function gave None.

    Attributes:
        parts: [R, F] float64, unweighted.
        correct: [R] float64, correctness; all NaN where no function says it.
        seconds: [F] float64 that the functions took.
    """

    parts: Tensor
    correct: Tensor
    seconds: Tensor


class Rewards:
    """What a run is rewarded for.

    Args:
        functions: by name, in the order of metrics.
        weights: one for each; by default 1.
        correct: name of the one that says what is correct, in metrics and evaluations; None for none.
        unpaid: says what is correct and is no part of the reward; then `correct` is its name.
        messages: whether ``prompts`` and ``completions`` reach functions as chats, as TRL has them.
        timeout_s: seconds for each call of an async function; None for no limit.

    Raises:
        ValueError: no function, or one that cannot be called; weights of another number; no function of the
            name `correct`.
    """

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        weights: Sequence[float] = (),
        correct: str | None = None,
        *,
        unpaid: Callable[..., Any] | None = None,
        messages: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._functions = [_function(name, call) for name, call in functions.items()]
        if not self._functions:
            raise ValueError("reward: expected at least one function")
        if weights and len(weights) != len(self._functions):
            raise ValueError(f"reward.weights: expected {len(self._functions)}, got {len(weights)}")
        self.names = tuple(functions)
        self.weights = torch.tensor(list(weights) or [1.0] * len(self.names), dtype=torch.float64)
        self.correct: Function | None = None
        if correct is not None and unpaid is not None:
            self.correct = _function(correct, unpaid)
        elif correct is not None:
            if correct not in functions:
                raise ValueError(f"reward.name: no function is called '{correct}': {', '.join(functions)}")
            self.correct = self._functions[self.names.index(correct)]
        self._messages, self._timeout_s, self._loop = messages, timeout_s, EventLoop()

    @property
    def plain(self) -> bool:
        """Whether all there is is one `RewardFunction`: then the reward's own metrics say everything."""
        return len(self._functions) == 1 and self._functions[0].asked.kind == "response"

    @property
    def first_plain(self) -> str | None:
        """Name of the first `RewardFunction`, as built-in ones are; None for none."""
        return next((f.name for f in self._functions if f.asked.kind == "response"), None)

    @property
    def paid(self) -> int | None:
        """Which function's part is the correctness; None where that is not rewarded."""
        return self._functions.index(self.correct) if self.correct in self._functions else None

    @property
    def _all(self) -> list[Function]:
        """What is rewarded, in order, and behind it what is only measured."""
        unpaid = [] if self.correct is None or self.paid is not None else [self.correct]
        return [*self._functions, *unpaid]

    def check_columns(self, table: str, problems: Sequence[Problem], *, evaluation: bool = False) -> None:
        """Checks that problems have the columns that functions ask for.

        Args:
            table: of the configuration, for messages.
            problems: all of them.
            evaluation: whether only correctness is graded.

        Raises:
            ValueError: names function, column and problem.
        """
        functions = [function for function in self._all if not evaluation or function == self.correct]
        for function in functions:
            for name in function.asked.columns:
                lacking = next((problem for problem in problems if name not in problem.columns), None)
                if lacking is not None and name != ANSWER:
                    raise ValueError(
                        f"reward function '{function.name}' asks for '{name}', but problem '{lacking.id}' of "
                        f"{table}.source has no such column; it has {sorted(lacking.columns) or 'none'}"
                    )

    def grade(self, batch: RolloutBatch, problems: Sequence[Problem]) -> Graded:
        """What every function says of every row.

        Plain functions run one after the other, then all async ones at once.

        Args:
            batch: R rows on the CPU, with a tokenizer.
            problems: one per prompt of the batch.

        Raises:
            RuntimeError: a function failed; names it, row and problem. What a `RewardFunction` raises comes
                as it is.
            ValueError: a function gave something else than finite numbers and None, one for each row.
        """
        functions = self._all
        given = self._given(functions, batch, problems)
        parts = torch.stack([_tensor(own.values) for own in given[: len(self.names)]], 1)
        correct = torch.full((len(batch),), math.nan, dtype=torch.float64)
        if self.correct is not None:
            correct = _tensor(given[functions.index(self.correct)].values)
        seconds = torch.tensor([own.seconds for own in given[: len(self.names)]], dtype=torch.float64)
        return Graded(parts, correct, seconds)

    def correctness(self, batch: RolloutBatch, problems: Sequence[Problem]) -> Values:
        """[R] correctness alone, as evaluations measure it; the arguments and errors of `grade`."""
        assert self.correct is not None
        return self._given([self.correct], batch, problems)[0].values

    def total(self, parts: Tensor) -> Tensor:
        """[R] the weighted sum of parts [R, F] that are not NaN; NaN where all are."""
        total = (parts * self.weights).nansum(1)
        return total.masked_fill(parts.isnan().all(1), math.nan)

    def _given(
        self, functions: Sequence[Function], batch: RolloutBatch, problems: Sequence[Problem]
    ) -> list[Given]:
        samples = samples_of(batch, problems)
        given: dict[str, Given] = {}
        for function in functions:
            if function.asked.is_async:
                continue
            start = time.perf_counter()
            if function.asked.kind == "response":
                values = grade(batch, [problem.reference for problem in problems], function.call)
            else:
                values = values_of(function, samples, messages=self._messages)
            given[function.name] = Given(values, time.perf_counter() - start)
        waiting = [function for function in functions if function.asked.is_async]
        if waiting:
            calls = all_values_of(waiting, samples, messages=self._messages, timeout_s=self._timeout_s)
            given |= zip((f.name for f in waiting), self._loop.run(calls), strict=True)
        return [given[function.name] for function in functions]


def _function(name: str, call: Callable[..., Any]) -> Function:
    return Function(name, call, asked_by(call, name))


def _tensor(values: Values) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
