"""One process decodes for all."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch.distributed as dist

from elastic.budget import Budget, Phase
from elastic.budget.markers import Markers
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.rollout.plan.limits import model_limits
from elastic.train.collect.rescue import batch_of_failure

# How long processes wait for a rollout; those of accelerate's own group give up after minutes.
_LONGEST_WAIT = timedelta(days=1)


class FirstRankEngine:
    """Decodes the rows of all processes in one call of the main process's engine, in the processes' order.

    Requests and records go over a process group of their own, through the host's memory (gloo).

    Args:
        engine: of the main process; None in the others.
        accelerator: knows the processes, all of which make this object and call `generate`.
        model: the trained model.
        tokenizer: its tokenizer.
        markers: of thinking.
        max_rows: rows decoded at once.
    """

    def __init__(
        self,
        engine: RolloutEngine | None,
        accelerator: Any,
        model: Any,
        tokenizer: Any,
        markers: Markers,
        max_rows: int,
    ) -> None:
        self._engine, self._accelerator = engine, accelerator
        self.model, self.tokenizer, self.markers, self.max_rows = model, tokenizer, markers, max_rows
        self.limits = model_limits(model, tokenizer, markers, None, None)
        self._group = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        budget: Budget | Sequence[Budget],
        seeds: Sequence[int],
        phase: Sequence[Phase],
        samples_per_prompt: int,
        **options: Any,
    ) -> RolloutBatch:
        """The rows of this process's prompts, on the CPU; none for no prompts.

        Args:
            prompts, budget, seeds, phase: as for `RolloutEngine.generate`.
            samples_per_prompt: the same in all processes.
            options: others of `RolloutEngine.generate`, the same in all processes.

        Raises:
            Exception: in the main process what its engine raised; in the others a RuntimeError with its text.
        """
        budgets = [budget] * len(prompts) if isinstance(budget, Budget) else [*budget]
        request = {"prompts": [*prompts], "budget": budgets, "seeds": [*seeds], "phase": [*phase]}
        main = self._engine is not None
        count = self._accelerator.num_processes
        requests: list[Any] | None = [None] * count if main else None
        dist.gather_object(request, requests, group=self._group)
        answers: list[Any] | None = None
        failure: Exception | None = None
        if requests is not None:
            try:
                answers = self._answer(requests, samples_per_prompt, options)
            except Exception as error:
                failure = error
                answers = [f"{type(error).__name__}: {error}"] * count
        received: list[Any] = [None]
        dist.scatter_object_list(received, answers, group=self._group)
        answer = received[0]
        if isinstance(answer, str):
            with batch_of_failure(None, "rollouts", together=self._accelerator):
                raise failure or RuntimeError(f"the first process could not decode, see there: {answer}")
        batch: RolloutBatch = replace(answer, tokenizer=self.tokenizer)
        return batch

    def _answer(
        self, requests: Sequence[dict[str, list[Any]]], samples: int, options: dict[str, Any]
    ) -> list[RolloutBatch]:
        """The records of all processes, without the tokenizer, which each has."""
        assert self._engine is not None
        joined = {name: [value for own in requests for value in own[name]] for name in requests[0]}
        batch = self._engine.generate(**joined | options, samples_per_prompt=samples).to("cpu")
        batch = replace(batch, tokenizer=None)
        ends = [0]
        for own in requests:
            ends.append(ends[-1] + len(own["seeds"]))
        return [batch[first:end] for first, end in pairwise(ends)]


def takes_part(engine: Any, requests: Sequence[Any]) -> bool:
    """Whether a process with these requests must call `generate`: with none where one decodes for all."""
    return bool(requests) or isinstance(engine, FirstRankEngine)
