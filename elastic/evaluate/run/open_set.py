"""A set as the command line and other callers name it: its prompts' rule and its reward, by its source."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from elastic.data import NAMED_SETS, Problem
from elastic.evaluate.run.sets import EvalSet
from elastic.rewards import RewardFunction, math_reward
from elastic.rewards.pool import PooledReward
from elastic.rollout import chat_prompts

REWARDS = ("math", "tiny")


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
) -> EvalSet:
    """Problems under the rules of their source.

    The prompts of a named set are complete; those of other sets are questions for the chat template, if the
    tokenizer has one.

    Args:
        source: as given to `elastic.data.load`; a file gives the set its name without the ending.
        problems: loaded from it.
        tokenizer: of the model.
        reward: a name of `REWARDS`; by default that of the named set, else `math`.
        chat: whether the chat template is applied; by default as above.
        system: a system message; needs the template.
        suffix: a line behind each question; needs the template.
        add_special_tokens: of prompts without a template.

    Raises:
        ValueError: problems that are graded by tests, an unknown reward, a template that the tokenizer has
            not, or an option that needs one.
    """
    name = source if source in NAMED_SETS or not Path(source).exists() else Path(source).stem
    if any(problem.tests for problem in problems):
        raise ValueError(f"data: problems of '{name}' are graded by tests, which no reward runs yet")
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
        reward=_reward(reward or ("tiny" if source == "tiny" else "math")),
        template=partial(chat_prompts, tokenizer, system=system) if templated else None,
        suffix=suffix,
        ask=None if named is None else named.ask,
        phrases={} if named is None else named.phrases,
        add_special_tokens=False if complete else add_special_tokens,
    )


def _reward(name: str) -> RewardFunction:
    if name not in REWARDS:
        raise ValueError(f"reward: expected one of {', '.join(REWARDS)}, got '{name}'")
    if name == "math":
        return PooledReward(math_reward)
    from elastic.models import tiny

    return tiny.reward
