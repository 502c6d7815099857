"""The methods that a configuration can name: ``method = "e1"`` at the top of a file.

A preset holds what makes the method, and nothing of a run's size: rates, steps and numbers of rows are up to
the file. What was given is never changed. Where it contradicts the method, it is refused.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_ANSWERS = {"reward.length": "none"}  # the reward is 1 for a right answer and nothing else
_WHOLE = {"budget.cuts": None}  # one solution behind a thought
_SEPARATE = ("budget.thinking", "budget.solution")
_ONE_CAP = _WHOLE | {
    "budget.thinking": "unlimited",
    "budget.solution": "unlimited",
    "budget.draw": "fixed",
}


class Preset(NamedTuple):
    """What a method asks of a configuration, by ``table.key``.

    Attributes:
        fixed: values without which it would be another method; None for a key that must be absent.
        defaults: values of keys that are not given.
        needs: keys that have to be given.
        finite: keys that have to be numbers of tokens.
        above: pairs of keys whose first value has to exceed the second.
    """

    fixed: Mapping[str, Any]
    defaults: Mapping[str, Any] = {}
    needs: tuple[str, ...] = ()
    finite: tuple[str, ...] = ()
    above: tuple[tuple[str, str], ...] = ()


def _l1(length: str) -> Preset:
    """arXiv 2503.04697: the prompt asks for N tokens, the reward pays for them, nothing is enforced.

    ``reward.alpha`` and the range of N have the paper's values by default.
    """
    fixed = _ONE_CAP | {"budget.total": None, "reward.length": length}
    return Preset(fixed, needs=("rollout.max_new_tokens",))


PRESETS = {
    # arXiv 2505.05315: rollouts under one (t*, s*).
    "e1": Preset(_ANSWERS | _WHOLE | {"budget.draw": "fixed"}, finite=_SEPARATE),
    # The control to E1: one hard cap of the same total, no forced end of thinking.
    "capped": Preset(_ANSWERS | _ONE_CAP, needs=("budget.total",)),
    "l1_exact": _l1("l1-exact"),
    # Starts from the Exact model: its run's final/ is model.path.
    "l1_max": _l1("l1-max"),
    # E1 with each group's budgets drawn.
    "e1_random": Preset(_ANSWERS | _WHOLE | {"budget.draw": "random"}, finite=_SEPARATE),
    # arXiv 2508.08940: the budget shrinks while training goes on; here it is E1's pair, enforced.
    "e1_curriculum": Preset(
        _ANSWERS | _WHOLE | {"budget.draw": "curriculum"},
        {"budget.curriculum": "exponential"},
        needs=("budget.thinking_start", "budget.curriculum_steps"),
        finite=_SEPARATE,
        above=(("budget.thinking_start", "budget.thinking"),),
    ),
    # arXiv 2510.15110: a row that the cap truncates is graded as it stands, mostly 0; the rest is how GRPO is
    # run. 0.28 is that of the published script. Its code divides advantages by the deviation of the rewards
    # less their group's mean, `batch` by that of the rewards: one factor for all rows of a step.
    "dler": Preset(
        _ANSWERS | _ONE_CAP | {"loss.advantage": "batch", "rollout.dynamic_sampling": True},
        {"loss.clip_high": 0.28},
        needs=("budget.total",),
        above=(("loss.clip_high", "loss.clip_low"),),
    ),
    # arXiv 2505.13438: solutions behind several cuts of one thought. Its code divides no advantage by a
    # deviation.
    "anytime": Preset(
        _ANSWERS | {"budget.draw": "fixed"},
        {"loss.advantage": "none"},
        needs=("budget.cuts",),
        finite=_SEPARATE,
    ),
}
UNTRAINED = ("vanilla", "s1", "separate")  # policies at inference, see `elastic.evaluate.methods`


def settings(config: Any) -> dict[str, dict[str, Any]]:
    """The values that ``config.method`` gives to keys that were not given, by table.

    Args:
        config: a `TrainConfig` whose ``method`` is not None.

    Raises:
        ValueError: an unknown method, or one without training; a given value that contradicts the method, or
            a key that it needs.
    """
    method = config.method
    trained = ", ".join(PRESETS)
    if method in UNTRAINED:
        raise ValueError(
            f"method: '{method}' has no training, it runs on any model at inference; these have: {trained}"
        )
    if method not in PRESETS:
        raise ValueError(f"method: expected one of {trained}, got '{method}'")
    preset, named = PRESETS[method], f"method = '{method}'"
    for key in preset.needs:
        if not _given(config, key):
            raise ValueError(f"{key}: {named} needs it")
    for key, value in preset.fixed.items():
        if _given(config, key) and _value(config, key) != value:
            wanted = "absent" if value is None else repr(value)
            raise ValueError(f"{key}: must be {wanted} with {named}, got {_value(config, key)!r}")
    for key in preset.finite:
        if not isinstance(_value(config, key), int):
            raise ValueError(f"{key}: must be a number of tokens with {named}, got {_value(config, key)!r}")
    values = {key: value for key, value in {**preset.fixed, **preset.defaults}.items() if value is not None}
    for key, other in preset.above:
        more = values[key] if key in values and not _given(config, key) else _value(config, key)
        if more <= _value(config, other):
            raise ValueError(
                f"{key}: must be above {other} = {_value(config, other)} with {named}, got {more}"
            )
    result: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        table, name = key.split(".")
        result.setdefault(table, {})[name] = value
    return result


def _given(config: Any, key: str) -> bool:
    table, name = key.split(".")
    return name in getattr(config, table).given


def _value(config: Any, key: str) -> Any:
    table, name = key.split(".")
    return getattr(getattr(config, table), name)
