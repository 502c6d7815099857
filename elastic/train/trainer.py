"""GRPO with budget-constrained rollouts (Elastic Reasoning, arXiv 2505.05315).

A step: draw problems and budgets, generate under them, grade, turn rewards into advantages (`collect`);
then one or more optimizer steps on the sampled tokens (`update`). Forced tokens are only context.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from elastic.data import Problem
from elastic.models.adapter import base_tensors, has_adapter
from elastic.train.collect.rescue import batch_of_failure, check_logprobs
from elastic.train.collect.rewards import Given
from elastic.train.config import TrainConfig
from elastic.train.parts import build_learner, build_rollouts, trained_model
from elastic.train.run import gpu_memory
from elastic.train.run.accelerator import build_accelerator, check_precision
from elastic.train.run.best import Best
from elastic.train.run.callbacks import Callback, Callbacks, StepFunction
from elastic.train.run.checks import check_shares, say_dropout, say_no_effect
from elastic.train.run.identity import identity, shapes_of
from elastic.train.run.metrics import MetricsLog
from elastic.train.run.output import FINAL_DIRECTORY
from elastic.train.run.progress import Progress, is_due
from elastic.train.run.sinks import Sink
from elastic.train.run.standing import Standing
from elastic.train.run.state import RunState
from elastic.train.run.termination import Termination
from elastic.train.run.weights import weights_of
from elastic.train.update.diagnosis import load_experience
from elastic.train.update.group_settings import apply_settings
from elastic.train.update.updates import Updates


class Trainer:
    """Trains a model in place.

    Args:
        config: its values are checked; calling `TrainConfig.preflight` is up to the caller.
        model: the starting model, a Hugging Face causal language model (docs/models.md says which), or a
            `PeftModel` around one, whose adapter alone is trained. ``adapter.rank`` puts one around it.
        tokenizer: its tokenizer.
        dataset: training problems.
        reward: what is rewarded in the place of what ``[reward]`` names: (graded response, answer) -> float,
            see `elastic.rewards.response.graded_response`; or a list of functions, see docs/rewards.md.
        eval_dataset: problems of the evaluations; needed where ``eval.every`` is above 0.
        callbacks: called after each step, evaluation and checkpoint, on every process; a plain function after
            each step, with the progress and the step's metrics. One that returns True ends the run.
        sinks: get the metrics too, besides what ``[logging]`` names.
        accelerator: None builds one from the configuration.

    Raises:
        ValueError: markers, prompts, budgets and model do not go together; named before anything runs.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Any,
        tokenizer: Any,
        dataset: Sequence[Problem],
        reward: Given | None = None,
        *,
        eval_dataset: Sequence[Problem] = (),
        callbacks: Sequence[Callback | StepFunction] = (),
        sinks: Sequence[Sink] = (),
        accelerator: Any = None,
    ) -> None:
        self.config, self._sinks = config, sinks
        self.accelerator = accelerator = accelerator or build_accelerator(config)
        check_precision(accelerator, config)
        check_shares(config, accelerator.num_processes)
        self.model = model = trained_model(config, model, accelerator)
        shapes = shapes_of(model)
        weights = weights_of(model, tokenizer, config.adapter.merge)
        rollouts = build_rollouts(config, model, tokenizer, dataset, reward, eval_dataset, accelerator)
        self._refresh_engine, self._order = rollouts.refresh, rollouts.order
        self._collector, self._evaluation = rollouts.collector, rollouts.evaluation
        # From here on every process may hold a part of the model only.
        learner = build_learner(config, model, accelerator, rollouts.longest)
        self._policy, self.optimizer = learner.policy, learner.optimizer
        self._settings, self._attention = learner.settings, learner.attention
        self._callbacks = Callbacks(callbacks, accelerator)
        if accelerator.is_main_process:
            say_no_effect(config, accelerator.num_processes)
            say_dropout(model)
        reference = learner.reference
        found = identity(
            *(dataset, eval_dataset, tokenizer, shapes, reference.tensors if reference else None),
            base=base_tensors(model) if has_adapter(model) else None,
        )
        self._termination = Termination()
        self._run = RunState(config, accelerator, weights, learner.state, found)
        self._standing = Standing(self._run, accelerator, self._termination)
        self._best = Best(config, self._run, accelerator)
        self._updates = Updates(
            config, accelerator, self._policy, self.optimizer, reference, self._standing.touch
        )

    def train(self) -> Progress:
        """Runs every step that is left, from the newest checkpoint if there is one, and saves the model.

        A failure in a reward function or an update leaves the rollouts of the step in ``failed/`` and a
        checkpoint of the state before it, whatever ``train.save_every`` says. An interruption leaves a
        checkpoint too. SIGTERM between a step's first update and its end waits for that end; Ctrl-C does not,
        and what is behind the newest checkpoint is lost. Started again, by a new Trainer or another call, the
        run continues with the same results. A finished run does nothing.

        Returns:
            Where the run stands: all steps done, unless a callback or ``train.patience`` ended it before.

        Raises:
            ValueError: a checkpoint of another configuration, data or model; a directory with another run,
                or one that is being written to; any where ``train.resume`` is ``never``.
            OSError: the disk is full; earlier checkpoints stay.
            NotFinite: a gradient, the loss or a logprob of the rollouts is not; says which rows or weights.
        """
        if self._standing.finished is not None:
            return self._standing.finished
        check_precision(self.accelerator, self.config)
        with self._run.lock.held(self.accelerator), self._termination:
            progress = self._train(self._standing.go_on())
        if progress.step == self.config.train.steps or self._best.waited(progress.step):
            self._standing.finished = progress
        return progress

    def _train(self, progress: Progress) -> Progress:
        apply_settings(self.optimizer, self._settings)
        self._best.begin()
        self._callbacks.begin()
        log = None
        if self.accelerator.is_main_process:
            # Without a checkpoint nothing of an earlier attempt counts, nor its evaluation of step 0.
            log = MetricsLog(self.config, progress.step or -1, self._sinks)
        try:
            return self._all_steps(progress, log)
        except BaseException as error:
            self._standing.rescue(error, log)
            raise
        finally:
            if log is not None:
                log.close()

    def replay(self) -> dict[str, float]:
        """Runs the updates of a failed step again, from the checkpoint before it; saves nothing.

        For looking into a failure, say under `torch.autograd.set_detect_anomaly`. `train` then goes back to
        the checkpoint. All processes call it. Returns the updates' metrics, if they do not fail again.

        Raises:
            FileNotFoundError: the step that comes next left no experience in ``failed/``.
        """
        with self._run.lock.held(self.accelerator), self._termination:
            progress = self._standing.go_on()
            apply_settings(self.optimizer, self._settings)
            process = self.accelerator.process_index
            experience = load_experience(self._run.output, progress.step + 1, process)
            self._standing.touch()
            return self._updates.run(experience, progress.step, progress.update)[1]

    def _all_steps(self, progress: Progress, log: MetricsLog | None) -> Progress:
        if log is not None:
            log.say(f"attention of updates: {self._attention}")
        if not progress.evaluated or (progress.step == 0 and self.config.eval.at_start):
            progress = self._evaluate(progress, log)
        if log is not None and progress.step:
            steps = self.config.train.steps
            left = f"going on after step {progress.step} of {steps}"
            changes = "".join(f"\n  {change}" for change in self._run.changes)
            log.say(f"{left if progress.step < steps else f'all {steps} steps are done already'}{changes}")
        stop = self._callbacks.asked_to_stop() or self._best.waited(progress.step)
        while progress.step < self.config.train.steps and not stop:
            progress, stop = self._step(progress, log)
        if progress.step < self.config.train.steps and self._run.saved is None:
            self._run.save(progress)  # stopped before the first step: a run to go on with has a checkpoint
        final = self._run.save_model(self._run.output / FINAL_DIRECTORY)
        if log is not None:
            log.say(f"the trained model is in {final}")
        return progress

    def _step(self, progress: Progress, log: MetricsLog | None) -> tuple[Progress, bool]:
        gpu_memory.forget_peak(self.accelerator.device)
        start = time.perf_counter()
        self._standing.at(progress)
        self._refresh_engine()
        collected = self._collector.collect(progress.step, progress.position)
        updating = time.perf_counter()
        with batch_of_failure(collected.batch, "rollouts", together=self.accelerator):
            check_logprobs(collected.batch)
        with batch_of_failure(collected.batch, "rollouts", experience=collected.experience):
            update, metrics = self._updates.run(collected.experience, progress.step, progress.update)
        done = time.perf_counter()
        loop = self.config.train
        progress = Progress(
            step=progress.step + 1,
            update=update,
            position=progress.position + collected.taken,
            evaluated=not is_due(progress.step + 1, self.config.eval.every, loop.steps),
        )
        record = {
            "step": progress.step,
            **collected.metrics,
            **metrics,
            "epoch": self._order.epoch(progress.position),
            "tokens_per_second": collected.metrics["rollout_tokens"] / (done - start),
            "seconds": done - start,
            "seconds_rollout": collected.rollout_seconds,
            "seconds_reward": collected.reward_seconds,
            "seconds_update": done - updating,
            **gpu_memory.peak(self.accelerator.device),
        }
        if log is not None:
            log.step(record, partial(collected.samples, progress.step))
        self._standing.at(progress)
        if not progress.evaluated:
            progress = self._evaluate(progress, log)
        self._callbacks.step(progress, record)
        stop = self._callbacks.asked_to_stop() or self._best.waited(progress.step)
        if stop or is_due(progress.step, loop.save_every, loop.steps):
            if log is not None:
                log.sync()
            self._callbacks.save(progress, self._run.save(progress))
            stop = stop or self._callbacks.asked_to_stop()
        return progress, stop

    def _evaluate(self, progress: Progress, log: MetricsLog | None) -> Progress:
        if self._evaluation is None:
            return progress
        start = time.perf_counter()
        self._refresh_engine()
        record = self._evaluation.run()
        seconds = time.perf_counter() - start
        news = self._best.offer(progress.step, record)
        if log is not None:
            log.evaluation({"step": progress.step, **record, "seconds": seconds}, news)
        progress = replace(progress, evaluated=True)
        self._standing.at(progress)
        self._callbacks.evaluation(progress, record)
        return progress
