"""The reward functions that a configuration names, or that a `Trainer` is given."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from elastic.data import Problem
from elastic.rewards import RewardFunction, math_reward
from elastic.rewards.combined import Rewards
from elastic.rewards.functions import called, name_of
from elastic.rewards.length import soft_overlong
from elastic.rewards.pool import PooledReward
from elastic.rewards.sample import Sample
from elastic.train.config.reward import CORRECTNESS, NO_CORRECTNESS, OVERLONG, RewardConfig

Given = RewardFunction | Sequence[str | Callable[..., Any]] | Rewards


def rewards_of(config: RewardConfig, given: Given | None = None) -> Rewards:
    """What a run is rewarded for.

    Args:
        config: of the run.
        given: functions in the place of those that ``config`` names: one, which then says what is correct
            too, or several, among them names of built-in ones. Of several the correct one is that of
            ``reward.name`` if this was set, else the first built-in or `RewardFunction`.

    Raises:
        ValueError: functions that cannot be called or told apart, or that this machine cannot give.
    """
    if isinstance(given, Rewards):
        return given
    if given is not None and config.functions:
        raise ValueError("reward.functions: names functions, but the Trainer was given others")
    options: dict[str, Any] = {"messages": config.messages, "timeout_s": config.async_timeout_s}
    if callable(given):
        name = name_of(given)
        return Rewards({name: given}, config.weights, name, **options)
    if given is not None:
        return _of_list(config, given, options)
    own = {called(path): function for path, function in config.own_functions().items()}
    functions = {called(path): own.get(called(path)) or built_in(config, path) for path in config.paid}
    return _with_correct(config, functions, options)


def check_rewards(rewards: Rewards, dataset: Sequence[Problem], evaluated: Sequence[Problem]) -> None:
    """Checks that problems have the columns that rewards read.

    Args:
        rewards: of the run.
        dataset: training problems.
        evaluated: those of the evaluations; empty for none.

    Raises:
        ValueError: a column is missing, or nothing says which answers of an evaluation are correct.
    """
    rewards.check_columns("data", dataset)
    if evaluated:
        if rewards.correct is None:
            raise ValueError("reward: eval.every needs one that says what is correct; set reward.name")
        rewards.check_columns("eval", evaluated, evaluation=True)


def _of_list(
    config: RewardConfig, given: Sequence[str | Callable[..., Any]], options: dict[str, Any]
) -> Rewards:
    functions: dict[str, Callable[..., Any]] = {}
    for own in given:
        name = own if isinstance(own, str) else name_of(own)
        if name in functions:
            raise ValueError(f"reward: two functions are called '{name}', which metrics could not tell apart")
        functions[name] = built_in(config, own) if isinstance(own, str) else own
    if "name" in config.given:
        return _with_correct(config, functions, options)
    rewards = Rewards(functions, config.weights, **options)
    return Rewards(functions, config.weights, rewards.first_plain, **options)


def _with_correct(
    config: RewardConfig, functions: dict[str, Callable[..., Any]], options: dict[str, Any]
) -> Rewards:
    """The functions with the one that ``reward.name`` names, which need not be among them."""
    correct = called(config.name)
    if config.name == NO_CORRECTNESS:
        return Rewards(functions, config.weights, **options)
    if correct not in functions:
        options["unpaid"] = config.own_functions().get(config.name) or built_in(config, config.name)
    return Rewards(functions, config.weights, correct, **options)


def built_in(config: RewardConfig, name: str) -> Callable[..., Any]:
    """The reward of a name; ValueError for an unknown one, or where this machine cannot give it."""
    if name == "math":
        math = partial(math_reward, boxes=config.boxes, answer_tags=config.answer_tags)
        return PooledReward(math, config.workers)
    if name == "code":
        return PooledReward(config.code_grader(), config.workers)
    if name == "tiny":
        from elastic.models import tiny

        return tiny.reward
    if name == OVERLONG and config.overlong_tokens and config.overlong_cache:
        return _overlong(config.overlong_tokens, config.overlong_cache)
    raise ValueError(f"reward: unknown reward '{name}' (known: {', '.join((*CORRECTNESS, OVERLONG))})")


def _overlong(tokens: int, cache: int) -> Callable[[Sample], float]:
    def overlong(sample: Sample) -> float:
        """`soft_overlong` of the sampled tokens: forced ones are not the model's."""
        return soft_overlong(sample.thinking_tokens + sample.solution_tokens, tokens, cache)

    return overlong
