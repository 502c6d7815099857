"""What a training is made of: the model, what decodes and grades, and what learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from elastic.data import Problem
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
from elastic.train.collect.rewards import Given, check_rewards, rewards_of
from elastic.train.config import TrainConfig
from elastic.train.run.accelerator import prepare, shards, shards_optimizer
from elastic.train.run.adapter import with_adapter
from elastic.train.run.best import check_best
from elastic.train.run.checks import check_sharded, check_weights
from elastic.train.run.optimizer_state import OptimizerState
from elastic.train.update.flash import choose_attention, computing_dtype
from elastic.train.update.group_settings import Settings, settings_of
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.parameter_groups import freeze
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.reference import Reference

_MARKER_KEYS = ("model.start_marker", "model.end_marker", "model.ends")


def trained_model(config: TrainConfig, model: Any, accelerator: Any) -> Any:
    """The model to train, on its device: with its adapter and its frozen parameters, checked.

    Raises:
        ValueError: it cannot be trained, or not in this way.
    """
    # An earlier Trainer of this model may have left its autocast around it.
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model = with_adapter(model, config)
    freeze(model, config.optim)
    check_weights(model)
    if shards_optimizer(accelerator):
        check_sharded(config, model)
    model.to(accelerator.device)
    packs(model)  # refuses, before the first rollout, a model that cannot be trained
    return model


@dataclass(frozen=True)
class Rollouts:
    """What decodes and grades.

    Attributes:
        refresh: to be called before the engine decodes with weights that have changed.
        order: of the training problems.
        collector: of a step's rollouts.
        evaluation: None where there is none.
        longest: most tokens that a row may sample; None for no limit.
    """

    refresh: Callable[[], None]
    order: DataOrder
    collector: Collector
    evaluation: Evaluation | None
    longest: int | None


def build_rollouts(
    config: TrainConfig,
    model: Any,
    tokenizer: Any,
    dataset: Sequence[Problem],
    reward: Given | None,
    eval_dataset: Sequence[Problem],
    accelerator: Any,
) -> Rollouts:
    """`Rollouts` by a model that `trained_model` returned and that is still whole; the rest as of `Trainer`.

    Raises:
        ValueError: markers, prompts, budgets, rewards and model do not go together.
    """
    evaluates = config.eval.every > 0
    if evaluates and not eval_dataset:
        raise ValueError(f"eval.every: is {config.eval.every}, but there are no problems to evaluate")
    given = (config.model.start_marker, config.model.end_marker, config.model.ends)
    markers = choose_markers(tokenizer, *given, names=_MARKER_KEYS)
    rewards = rewards_of(config.reward, reward)
    check_rewards(rewards, dataset, eval_dataset if evaluates else ())
    prompts = Prompts.of_training(tokenizer, config)
    eval_prompts = Prompts.of_evaluation(tokenizer, config) if evaluates else None
    budgets = BudgetDraw(config.budget, config.train.seed, dataset)
    if evaluates:
        check_best(config, metric_names(config.eval, budgets.final))
    engine, refresh = open_engine(config, model, tokenizer, markers, accelerator, shards(accelerator))
    sources = ((dataset, prompts), (eval_dataset, eval_prompts))
    check_data(config, engine, budgets, *sources, say=accelerator.is_main_process)
    order = DataOrder(dataset, config.train.seed, config.data.shuffle)
    kind = AnytimeCollector if config.budget.cuts else Collector
    collector = kind(config, accelerator, engine, prompts, order, budgets, rewards)
    evaluation = None
    if eval_prompts is not None:
        evaluation = Evaluation(
            *(config.eval, accelerator, engine, eval_prompts, eval_dataset, rewards, budgets.final),
            max_new_tokens=config.rollout.max_new_tokens,
        )
    return Rollouts(refresh, order, collector, evaluation, budgets.largest.max_sampled)


@dataclass(frozen=True)
class Learner:
    """What learns.

    Attributes:
        policy: the trained model with its loss.
        optimizer: as accelerate prepared it.
        settings: of its parameter groups, as the configuration gives them.
        state: gathers and restores the optimizer's.
        reference: the starting model; None without a KL term.
        attention: that updates run with, in words.
    """

    policy: Policy
    optimizer: Any
    settings: Settings
    state: OptimizerState
    reference: Reference | None
    attention: str


def build_learner(config: TrainConfig, model: Any, accelerator: Any, longest: int | None) -> Learner:
    """`Learner` of a model that `trained_model` returned; every process may then hold a part of it only.

    Args:
        config: of the run.
        model: the trained model, still whole.
        accelerator: knows the processes.
        longest: most tokens that a row may sample; None for no limit.
    """
    reference = Reference(model) if config.loss.kl_coef > 0 else None
    if config.model.gradient_checkpointing:
        recompute_activations(model, Offload() if config.model.offload_activations else None)
    attention = choose_attention(config.train.attention, model, computing_dtype(accelerator, model))
    policy = Policy(
        model,
        accelerator,
        config.loss,
        kernel=attention.kernel,
        temperature=config.rollout.temperature,
        max_length=config.loss.max_length or longest,
        accumulation_steps=config.train.accumulation_steps,
        micro_batch_tokens=config.train.micro_batch_tokens,
    )
    optimizer = build_optimizer(model, config.optim)
    state = OptimizerState(optimizer, model)
    policy.model, optimizer = prepare(accelerator, model, optimizer, config.optim.max_grad_norm)
    state.optimizer = optimizer
    return Learner(policy, optimizer, settings_of(optimizer, config.optim), state, reference, attention.text)
