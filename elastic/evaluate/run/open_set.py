"""A set as the command line and other callers name it: its prompts' rule and its reward, by its source."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from elastic.data import NAMED_SETS, Problem
from elastic.evaluate.run.sets import EvalSet
from elastic.rewards import RewardFunction, math_reward
from elastic.rewards.code import Rules, code_grader
from elastic.rewards.pool import PooledReward
from elastic.rollout import chat_prompts

REWARDS = ("math", "tiny", "code")


def eval_set(
    source: str,
    problems: Sequence[Problem],
    tokenizer: Any,
    *,
    reward: str | None = None,
    chat: bool | None = None,
    system: str | None = None,
    suffix: str = "",
    add_special_tokens: bool | None = None,
    rules: Rules = Rules(),  # noqa: B008 - frozen
) -> EvalSet:
    """Problems under the rules of their source.

    The prompts of a named set are complete; those of other sets are questions for the chat template, if the
    tokenizer has one.

    Args:
        source: as given to `elastic.data.load`; a file gives the set its name without the ending.
        problems: loaded from it.
        tokenizer: of the model.
        reward: a name of `REWARDS`; by default `code` where there are tests, else that of the named set, else
            `math`.
        chat: whether the chat template is applied; by default as above.
        system: a system message; needs the template.
        suffix: a line behind each question; needs the template.
        add_special_tokens: of prompts without a template.
        rules: of the reward `code`: how programs are run.

    Raises:
        ValueError: an unknown reward or one that does not fit the problems, programs that cannot be run here,
            a template that the tokenizer has not, or an option that needs one.
    """
    name = source if source in NAMED_SETS or not Path(source).exists() else Path(source).stem
    chosen = _name_of_reward(name, source, problems, reward)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if chat and not has_template:
        raise ValueError(f"chat: the prompts of '{name}' need a chat template, and the tokenizer has none")
    templated = has_template and source not in NAMED_SETS if chat is None else chat
    if system and not templated:
        raise ValueError(f"system: needs questions and a chat template; '{name}' stands without one")
    complete = templated or source in NAMED_SETS  # a template and a named set write their special tokens
    named = NAMED_SETS.get(source)
    return EvalSet(
        name=name,
        problems=problems,
        reward=_reward(chosen, rules),
        template=partial(chat_prompts, tokenizer, system=system) if templated else None,
        suffix=suffix,
        ask=None if named is None else named.ask,
        phrases={} if named is None else named.phrases,
        add_special_tokens=False if complete else add_special_tokens,
    )


def _name_of_reward(name: str, source: str, problems: Sequence[Problem], reward: str | None) -> str:
    if reward is not None and reward not in REWARDS:
        raise ValueError(f"reward: expected one of {', '.join(REWARDS)}, got '{reward}'")
    with_tests = [bool(problem.tests) for problem in problems]
    chosen = reward or ("code" if any(with_tests) else "tiny" if source == "tiny" else "math")
    if chosen != "code" and any(with_tests):
        raise ValueError(f"reward: '{chosen}' runs no tests, and problems of '{name}' are graded by tests")
    if chosen == "code" and not all(with_tests):
        raise ValueError(f"reward: 'code' runs tests, and problems of '{name}' have none")
    return chosen


def _reward(name: str, rules: Rules) -> RewardFunction:
    if name == "code":
        return PooledReward(code_grader(rules))
    if name == "math":
        return PooledReward(math_reward)
    from elastic.models import tiny

    return tiny.reward
