"""All optimizer steps on one rollout batch."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from elastic.train.collect.experience import Experience
from elastic.train.collect.rescue import NotFinite
from elastic.train.collect.seeds import RandomStream, generator
from elastic.train.config import TrainConfig
from elastic.train.update import deepspeed
from elastic.train.update.diagnosis import diagnosis
from elastic.train.update.learning_rate import learning_rate
from elastic.train.update.masters import NARROW, masters_of
from elastic.train.update.minibatches import minibatches
from elastic.train.update.policy import Policy
from elastic.train.update.ratios import say_mismatch
from elastic.train.update.reference import Reference
from elastic.train.update.stats import UpdateStats


class Updates:
    """Updates the policy from experience.

    Args:
        config: of the run.
        accelerator: knows the processes.
        policy: the trained model with its loss.
        optimizer: as prepared.
        reference: the starting model; None without a KL term.
        touch: called before weights or optimizer change.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        policy: Policy,
        optimizer: Any,
        reference: Reference | None,
        touch: Callable[[], None],
    ) -> None:
        self._config, self._accelerator, self._policy = config, accelerator, policy
        self._optimizer, self._reference, self._touch = optimizer, reference, touch
        self._masters = masters_of(optimizer)
        self._first = True  # nothing is updated yet

    def run(self, experience: Experience, step: int, update: int) -> tuple[int, dict[str, float]]:
        """Updates the weights.

        Args:
            experience: this process's rows.
            step: the rollout batch's number, from 0.
            update: optimizer steps done so far.

        Returns:
            The update counter, and the step's metrics, means over processes and updates.

        Raises:
            NotFinite: a gradient or the loss is not; in all processes. Says which rows or weights are not.
        """
        config, stats, lr = self._config, UpdateStats(), 0.0
        loop, policy, reference = config.train, self._policy, self._reference
        epochs: list[list[list[int]]] = []
        for epoch in range(loop.epochs_per_batch):
            shuffle = generator(loop.seed, RandomStream.MINIBATCHES, step, epoch).shuffle
            epochs.append(minibatches(experience.prompt_of, loop.minibatches, shuffle))
        if config.loss.old_logprobs == "recompute":
            found = self._logprobs(experience, epochs[0], policy.logprobs)
            experience = replace(experience, old_logprobs=found)
        if reference is not None:
            found = self._logprobs(experience, epochs[0], lambda part: reference.logprobs(policy, part))
            experience = replace(experience, ref_logprobs=found)
        parts = [experience.select(rows) for epoch_rows in epochs for rows in epoch_rows]
        # What is done counts as it was done: on resume, more minibatches may follow than came before.
        updates = update + (loop.steps - step) * len(parts)
        try:
            for part, counts in zip(parts, self._counts(parts), strict=True):
                lr = learning_rate(config.optim, update, updates)
                self._optimizer_step(part, counts, lr, stats, step)
                update += 1
        except NotFinite as error:
            raise NotFinite(f"{error}; {diagnosis(policy, experience)}") from None
        metrics = stats.means(self._accelerator, reference is not None)
        if not math.isfinite(metrics["loss"]):
            what = f"step {step + 1}: the loss is {metrics['loss']}, but its gradients are finite"
            raise NotFinite(f"{what}; {diagnosis(policy, experience)}")
        if self._first and self._accelerator.is_main_process:
            narrow = any(parameter.dtype in NARROW for parameter in policy.model.parameters())
            say_mismatch(metrics["mismatch_p99"], config, narrow)
        self._first = False
        return update, metrics | {"lr": lr}

    def _logprobs(
        self, experience: Experience, batches: list[list[int]], measure: Callable[[Experience], list[Tensor]]
    ) -> list[Tensor]:
        """Logprobs of the rows that updates run, by `measure`; the others keep the rollout's.

        Rows go through the model in the batches of the first epoch, as in its updates. Matrix products round
        differently for other shapes; for equal ones a policy differs from itself by nothing at all.
        """
        found = list(experience.rollout_logprobs)
        for batch in batches:
            rows = [batch[row] for row in self._policy.rows_run(experience.select(batch))]
            for row, values in zip(rows, measure(experience.select(rows)), strict=True):
                found[row] = values
        return found

    def _counts(self, parts: list[Experience]) -> list[list[int]]:
        """Loss tokens and rows of each minibatch over all processes, which are asked once for all."""
        counts = [[part.loss_tokens, part.loss_rows] for part in parts]
        if self._accelerator.num_processes == 1:
            return counts
        summed = self._accelerator.reduce(torch.tensor(counts, device=self._accelerator.device), "sum")
        return [[int(value) for value in pair] for pair in summed.tolist()]

    def _optimizer_step(
        self, part: Experience, counts: list[int], lr: float, stats: UpdateStats, step: int
    ) -> None:
        num_tokens, num_rows = counts
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._optimizer.zero_grad()
        model, masters = self._policy.model, self._masters
        with masters.gathering(self._accelerator, model) if masters else nullcontext():
            self._policy.backward(part, num_tokens, num_rows, stats)
        engine = deepspeed.is_engine(model)
        if engine:
            self._touch()
            norm = deepspeed.step(model)  # measures first, and leaves the step out if that is not finite
        else:
            # With infinity the norm is only measured, nothing is scaled.
            limit = self._config.optim.max_grad_norm or math.inf
            trained = masters.tensors if masters else model.parameters()
            # The one wait of an optimizer step: weights must not change by a gradient that is not finite.
            norm = float(self._accelerator.clip_grad_norm_(trained, limit))
        if not math.isfinite(norm):
            raise NotFinite(
                f"step {step + 1}: the gradient's norm is {norm} in update {stats.updates + 1} of the step; "
                "the weights are those of the update before"
            )
        if not engine:
            self._touch()
            self._optimizer.step()
        stats.grad_norm += norm
        stats.updates += 1
