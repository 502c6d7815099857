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
from elastic.models.modes import recompute_activations
from elastic.models.offload import Offload
from elastic.rollout.plan.default_markers import choose_markers
from elastic.train.collect.anytime import AnytimeCollector
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.collector import Collector
from elastic.train.collect.data_checks import check_data
from elastic.train.collect.data_order import DataOrder
from elastic.train.collect.engines import open_engine
from elastic.train.collect.evaluation import Evaluation, metric_names
from elastic.train.collect.prompts import Prompts
from elastic.train.collect.rescue import batch_of_failure, check_logprobs
from elastic.train.collect.rewards import Given, check_rewards, rewards_of
from elastic.train.config import TrainConfig
from elastic.train.run import gpu_memory
from elastic.train.run.accelerator import (
    build_accelerator,
    check_precision,
    prepare,
    shards,
    shards_optimizer,
)
from elastic.train.run.adapter import with_adapter
from elastic.train.run.best import Best, check_best
from elastic.train.run.callbacks import Callback, Callbacks, StepFunction
from elastic.train.run.checks import check_sharded, check_shares, check_weights, say_dropout, say_no_effect
from elastic.train.run.identity import identity, shapes_of
from elastic.train.run.metrics import MetricsLog
from elastic.train.run.optimizer_state import OptimizerState
from elastic.train.run.output import FINAL_DIRECTORY
from elastic.train.run.progress import Progress, is_due
from elastic.train.run.sinks import Sink
from elastic.train.run.standing import Standing
from elastic.train.run.state import RunState
from elastic.train.run.termination import Termination
from elastic.train.run.weights import weights_of
from elastic.train.update.diagnosis import load_experience
from elastic.train.update.flash import choose_attention, computing_dtype
from elastic.train.update.group_settings import apply_settings, settings_of
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.parameter_groups import freeze
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.reference import Reference
from elastic.train.update.updates import Updates

_MARKER_KEYS = ("model.start_marker", "model.end_marker", "model.ends")


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
        # An earlier Trainer of this model may have left its autocast around it.
        model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        check_shares(config, accelerator.num_processes)
        model = with_adapter(model, config)
        freeze(model, config.optim)
        check_weights(model)
        if shards_optimizer(accelerator):
            check_sharded(config, model)
        if config.eval.every and not eval_dataset:
            raise ValueError(f"eval.every: is {config.eval.every}, but there are no problems to evaluate")
        chosen = config.model
        markers = choose_markers(
            tokenizer, chosen.start_marker, chosen.end_marker, chosen.ends, names=_MARKER_KEYS
        )
        rewards = rewards_of(config.reward, reward)
        check_rewards(rewards, dataset, eval_dataset if config.eval.every else ())
        prompts = Prompts.of_training(tokenizer, config)
        eval_prompts = Prompts.of_evaluation(tokenizer, config) if config.eval.every else None
        budgets = BudgetDraw(config.budget, config.train.seed, dataset)
        shapes = shapes_of(model)
        model.to(accelerator.device)
        packs(model)  # refuses, before the first rollout, a model that cannot be trained
        engine, self._refresh_engine = open_engine(
            config, model, tokenizer, markers, accelerator.num_processes, shards(accelerator)
        )
        sources = ((dataset, prompts), (eval_dataset, eval_prompts))
        check_data(config, engine, budgets, *sources, say=accelerator.is_main_process)
        reference = Reference(model) if config.loss.kl_coef > 0 else None
        if config.model.gradient_checkpointing:
            recompute_activations(model, Offload() if config.model.offload_activations else None)
        attention = choose_attention(config.train.attention, model, computing_dtype(accelerator, model))
        self._attention = attention.text
        weights = weights_of(model, tokenizer, config.adapter.merge)
        self._policy = Policy(
            model,
            accelerator,
            config.loss,
            kernel=attention.kernel,
            temperature=config.rollout.temperature,
            max_length=config.loss.max_length or budgets.largest.max_sampled,
            accumulation_steps=config.train.accumulation_steps,
            micro_batch_tokens=config.train.micro_batch_tokens,
        )
        optimizer = build_optimizer(model, config.optim)
        moments = OptimizerState(optimizer, model)
        # From here on every process may hold a part of the model only.
        self._policy.model, self.optimizer = prepare(
            accelerator, model, optimizer, config.optim.max_grad_norm
        )
        moments.optimizer = self.optimizer
        self._settings = settings_of(self.optimizer, config.optim)
        self.model = model
        self._order = DataOrder(dataset, config.train.seed, config.data.shuffle)
        collector = AnytimeCollector if config.budget.cuts else Collector
        self._collector = collector(config, accelerator, engine, prompts, self._order, budgets, rewards)
        self._evaluation = None
        if eval_prompts is not None:
            check_best(config, metric_names(config.eval, budgets.final))
            self._evaluation = Evaluation(
                *(config.eval, accelerator, engine, eval_prompts, eval_dataset, rewards, budgets.final),
                max_new_tokens=config.rollout.max_new_tokens,
            )
        self._callbacks = Callbacks(callbacks, accelerator)
        if accelerator.is_main_process:
            say_no_effect(config)
            say_dropout(model)
        found = identity(
            *(dataset, eval_dataset, tokenizer, shapes, reference.tensors if reference else None),
            base=base_tensors(model) if has_adapter(model) else None,
        )
        self._termination = Termination()
        self._run = RunState(config, accelerator, weights, moments, found)
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
            changes = "".join(f"\n  {change}" for change in self._run.changes)
            log.say(f"going on after step {progress.step} of {self.config.train.steps}{changes}")
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
