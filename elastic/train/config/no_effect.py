"""Keys of a configuration that have no effect in combination with its other keys, and why."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from elastic.data.filters import Filters
from elastic.data.import_path import is_path
from elastic.data.loading import NAMED_SETS
from elastic.train.config.loop import EvalConfig
from elastic.train.config.optimizers import HYPERPARAMETERS, reads
from elastic.train.config.schema import Section
from elastic.train.config.updates import LossConfig


class Rule(NamedTuple):
    """`keys` have no effect in a `TrainConfig` for which `idle` is true."""

    keys: tuple[str, ...]
    idle: Callable[[Any], bool]
    reason: str


def _bounded(c: Any) -> bool:
    """Whether no budget of training or evaluation is unlimited."""
    rollouts = c.budget.total is not None or "unlimited" not in (c.budget.thinking, c.budget.solution)
    return rollouts and not (c.eval.every and any(-1 in pair for pair in c.eval.budgets))


def _updates(c: Any) -> int:
    return c.train.steps * c.train.epochs_per_batch * c.train.minibatches


def _unread(key: str, c: Any) -> bool:
    return key not in reads(c.optim.name)


RULES = (
    Rule(("rollout.most_kept",), lambda c: not c.sampling.filters, "no filter is on"),
    Rule(
        ("rollout.most_kept",),
        lambda c: c.budget.cuts is not None,
        "with budget.cuts the losses take logprobs under the whole vocabulary",
    ),
    Rule(("data.seed",), lambda c: c.data.source not in NAMED_SETS, "only generated sets are drawn"),
    Rule(
        ("data.columns", "data.keep_columns", *(f"data.{item.name}" for item in fields(Filters))),
        lambda c: c.data.source in NAMED_SETS,
        "a generated set has no rows",
    ),
    Rule(
        ("eval.columns",),
        lambda c: (c.eval.source or c.data.source) in NAMED_SETS,
        "a generated set has no rows",
    ),
    Rule(
        ("data.add_special_tokens",),
        lambda c: {c.data.source, c.eval.source if c.eval.every else None} <= {None, *NAMED_SETS},
        "the prompts of a named set are complete",
    ),
    Rule(
        ("data.system",),
        lambda c: c.data.system == "",
        "an empty text leaves the chat template's own message",
    ),
    Rule(
        ("reward.boxes", "reward.answer_tags"),
        lambda c: "math" not in c.reward.used,
        "only the reward 'math' reads it",
    ),
    Rule(
        ("reward.workers",),
        lambda c: not {"math", "code"} & {*c.reward.used},
        "only the rewards 'math' and 'code' read it",
    ),
    Rule(
        ("adapter.alpha", "adapter.use_rslora", "adapter.target_modules", "adapter.dtype"),
        lambda c: c.adapter.rank == 0,
        "adapter.rank is 0",
    ),
    Rule(
        ("adapter.rollouts",),
        lambda c: c.rollout.engine == "vllm",
        "vLLM decodes with merged weights",
    ),
    Rule(
        ("reward.timeout_s", "reward.memory_mb", "reward.sandbox"),
        lambda c: "code" not in c.reward.used,
        "only the reward 'code' reads it",
    ),
    Rule(
        ("reward.messages", "reward.async_timeout_s"),
        lambda c: not any(map(is_path, c.reward.used)),
        "only functions of your own read it",
    ),
    Rule(
        ("reward.overlong_tokens", "reward.overlong_cache"),
        lambda c: "overlong" not in c.reward.functions,
        "only 'overlong' in reward.functions reads it",
    ),
    Rule(
        ("reward.alpha", "reward.target_min", "reward.target_max"),
        lambda c: c.reward.length == "none",
        "only a reward.length reads it",
    ),
    Rule(
        ("budget.thinking_low", "budget.solution_low"),
        lambda c: c.budget.draw != "random",
        "only budget.draw = 'random' reads it",
    ),
    Rule(
        ("budget.thinking_start", "budget.solution_start", "budget.curriculum_steps", "budget.curriculum"),
        lambda c: c.budget.draw != "curriculum",
        "only budget.draw = 'curriculum' reads it",
    ),
    Rule(
        ("budget.thinking_column", "budget.solution_column"),
        lambda c: c.budget.draw != "problem",
        "only budget.draw = 'problem' reads it",
    ),
    Rule(
        ("budget.cut_weights", "budget.cut_samples"),
        lambda c: c.budget.cuts is None,
        "only budget.cuts reads it",
    ),
    Rule(("budget.extension",), lambda c: c.budget.max_extensions == 0, "budget.max_extensions is 0"),
    Rule(("rollout.max_new_tokens",), _bounded, "the budgets end every row"),
    Rule(
        ("rollout.attention", "rollout.compile"),
        lambda c: c.rollout.engine != "own",
        "vLLM has its own attention and compilation",
    ),
    Rule(("rollout.vllm_memory",), lambda c: c.rollout.engine != "vllm", "rollout.engine is not 'vllm'"),
    Rule(("rollout.max_batches",), lambda c: not c.rollout.dynamic_sampling, "no rollout.dynamic_sampling"),
    Rule(("loss.pass_k",), lambda c: c.loss.advantage != "passk", "only loss.advantage = 'passk' reads it"),
    Rule(
        ("loss.advantage_eps",),
        lambda c: c.loss.advantage not in ("group", "batch"),
        "only the advantages 'group' and 'batch' divide by a deviation",
    ),
    Rule(
        ("loss.clip_low", "loss.delta", "loss.dual_clip"),
        lambda c: c.loss.loss in ("cispo", "sapo"),
        "neither cispo nor sapo reads it",
    ),
    Rule(("loss.clip_high",), lambda c: c.loss.loss == "sapo", "sapo does not clip"),
    Rule(("loss.tau_positive", "loss.tau_negative"), lambda c: c.loss.loss != "sapo", "only sapo reads it"),
    Rule(("loss.max_length",), lambda c: c.loss.loss != "dr_grpo", "only dr_grpo reads it"),
    Rule(("loss.kl", "loss.kl_weighted"), lambda c: c.loss.kl_coef == 0, "loss.kl_coef is 0"),
    Rule(
        ("loss.skip_zero_advantage",),
        lambda c: c.loss.kl_coef > 0 or c.loss.entropy_coef > 0,
        "every row has a gradient, of the KL or the entropy",
    ),
    Rule(
        ("loss.engine_level", "loss.engine_low", "loss.engine_high"),
        lambda c: c.loss.engine_correction == "none",
        "loss.engine_correction is 'none'",
    ),
    Rule(("loss.linear_chunk_tokens",), lambda c: c.loss.linear == "off", "loss.linear is 'off'"),
    Rule(
        ("optim.final_lr",),
        lambda c: c.optim.schedule in ("constant", "inverse_sqrt"),
        "no rate of this optim.schedule is given by it",
    ),
    Rule(
        ("optim.decay_ratio",),
        lambda c: c.optim.schedule != "warmup_stable_decay",
        "only optim.schedule = 'warmup_stable_decay' reads it",
    ),
    *(
        Rule((f"optim.{key}",), partial(_unread, key), "the optimizer of optim.name does not read it")
        for key in HYPERPARAMETERS
    ),
    Rule(
        ("optim.warmup_updates",),
        lambda c: c.optim.warmup_updates > _updates(c),
        "the run has fewer updates, so the rate never comes to optim.lr",
    ),
    Rule(
        ("optim.schedule", "optim.final_lr", "optim.decay_ratio"),
        lambda c: c.optim.warmup(_updates(c)) >= _updates(c),
        "all updates are warm-up",
    ),
    Rule(
        tuple(f"eval.{item.name}" for item in fields(EvalConfig) if item.name != "every"),
        lambda c: c.eval.every == 0,
        "eval.every is 0",
    ),
    Rule(("train.best_is",), lambda c: c.train.best is None, "no train.best"),
    Rule(
        ("logging.wandb_name", "logging.wandb_tags", "logging.wandb_mode"),
        lambda c: c.logging.wandb is None,
        "no logging.wandb",
    ),
    Rule(
        ("logging.samples", "logging.samples_table"),
        lambda c: c.logging.samples_every == 0,
        "logging.samples_every is 0",
    ),
)


def idle_keys(config: Any) -> dict[str, str]:
    """``table.key`` of everything that has no effect in a `TrainConfig`, given or not, with the reason."""
    return {key: rule.reason for rule in reversed(RULES) if rule.idle(config) for key in rule.keys}


def effective(loss: LossConfig, *names: str) -> dict[str, Any]:
    """Those of the named settings of ``[loss]`` that have an effect; the loss ops refuse the others."""
    config = SimpleNamespace(loss=loss)
    rules = [rule for rule in RULES if rule.keys[0].startswith("loss.") and rule.idle(config)]
    idle = {key for rule in rules for key in rule.keys}
    return {name: getattr(loss, name) for name in names if f"loss.{name}" not in idle}


def without_effect(config: Any, processes: int | None = None) -> list[str]:
    """``table.key (reason)`` of what was given and has no effect.

    Args:
        config: a `TrainConfig`.
        processes: of the run; None where that is not known.
    """
    idle = idle_keys(config)
    if processes == 1:
        idle["rollout.ranks"] = "there is one process"
    given = [f"{table}.{key}" for table in _tables(config) for key in sorted(getattr(config, table).given)]
    return [f"{key} ({idle[key]})" for key in given if key in idle]


def left_out(config: Any) -> set[str]:
    """Keys that a written configuration omits: they have no effect and their default value."""
    default = {
        f"{table}.{item.name}"
        for table in _tables(config)
        for item in fields(getattr(config, table))
        if getattr(getattr(config, table), item.name) == item.default
    }
    return default & idle_keys(config).keys()


def _tables(config: Any) -> Iterable[str]:
    return [item.name for item in fields(config) if isinstance(getattr(config, item.name), Section)]
