"""The options of the GRPO losses: names, types, what each one needs beside it, and the checks of a call."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, NamedTuple, TypedDict, TypeVar, get_args

from torch import Tensor

from elastic.ops._inputs import flag, integer, number, one_of, refuse_unused
from elastic.ops.advantage import KINDS, KINDS_WITH_EPS
from elastic.reference.loss import grpo_loss as reference_loss


class GrpoOptions(TypedDict, total=False):
    """Keywords of both GRPO losses; `elastic.ops.grpo_loss` says what each does.

    Defaults are those of `elastic.reference.grpo_loss`. None stands for an option that is not given.
    """

    rewards: Tensor | None
    group_offsets: Tensor | None
    advantage: str | None
    advantage_eps: float | None
    pass_k: int | None
    mask: Tensor | None
    ref_logprobs: Tensor | None
    engine_logprobs: Tensor | None
    engine_mode: str | None
    engine_level: str | None
    engine_low: float | None
    engine_high: float | None
    loss: str
    clip_low: float | None
    clip_high: float | None
    delta: float | None
    dual_clip: float | None
    tau_positive: float | None
    tau_negative: float | None
    kl_coef: float
    kl: str | None
    kl_weighted: bool
    entropy_coef: float
    temperature: float | Tensor
    softcap: float | None
    kept_ids: Tensor | None
    kept_offsets: Tensor | None
    num_tokens: int | None
    num_rows: int | None
    max_length: int | None
    skip_zero_advantage: bool


class _Rule(NamedTuple):
    """The check of an option, and what it does nothing without: a tensor, or values of another option."""

    check: Callable[[str, str, Any], Any]
    beside: str | None = None
    other: str | None = None
    values: tuple[str, ...] = ()


_CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo")
# Every option but the tensors and the temperature, which may be a tensor.
_RULES = {
    "advantage": _Rule(one_of(*KINDS), "rewards"),
    "advantage_eps": _Rule(number, "rewards", "advantage", KINDS_WITH_EPS),
    "pass_k": _Rule(integer, "rewards", "advantage", ("passk",)),
    "engine_mode": _Rule(one_of("truncate", "mask"), "engine_logprobs"),
    "engine_level": _Rule(one_of("token", "row"), "engine_logprobs"),
    "engine_low": _Rule(number, "engine_logprobs"),
    "engine_high": _Rule(number, "engine_logprobs"),
    "loss": _Rule(one_of(*_CLIPPED, "cispo", "sapo")),
    "clip_low": _Rule(number, None, "loss", _CLIPPED),
    "clip_high": _Rule(number, None, "loss", (*_CLIPPED, "cispo")),
    "delta": _Rule(number, None, "loss", _CLIPPED),
    "dual_clip": _Rule(number, None, "loss", _CLIPPED),
    "tau_positive": _Rule(number, None, "loss", ("sapo",)),
    "tau_negative": _Rule(number, None, "loss", ("sapo",)),
    "kl_coef": _Rule(number),
    "kl": _Rule(one_of("k1", "k2", "k3"), "ref_logprobs"),
    "kl_weighted": _Rule(flag, "ref_logprobs"),
    "entropy_coef": _Rule(number),
    "softcap": _Rule(number),
    "num_tokens": _Rule(integer),
    "num_rows": _Rule(integer),
    "max_length": _Rule(integer, None, "loss", ("dr_grpo",)),
    "skip_zero_advantage": _Rule(flag),
}
_TYPES = GrpoOptions.__annotations__
_MAY_BE_NONE = frozenset(name for name, hint in _TYPES.items() if NoneType in get_args(hint))
_REFERENCE = inspect.signature(reference_loss).parameters
_DEFAULTS = {name: _REFERENCE[name].default for name in _RULES}

Function = TypeVar("Function", bound=Callable[..., Any])


def with_grpo_options(function: Function) -> Function:
    """Writes the keywords of `**options: Unpack[GrpoOptions]` out in the function's signature, for help()."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(
            name, keyword, default=None if name in _MAY_BE_NONE else _REFERENCE[name].default, annotation=hint
        )
        for name, hint in _TYPES.items()
    ]
    setattr(function, "__signature__", signature.replace(parameters=[*own, *options]))  # noqa: B010
    return function


def refuse_unknown(op: str, given: Mapping[str, Any]) -> None:
    """Raises TypeError for a keyword that is no option, as Python itself would."""
    for name in given:
        if name not in _TYPES:
            raise TypeError(f"{op}() got an unexpected keyword argument {name!r}")


def checked_options(op: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option as the C++ ops take it, but tensors and the temperature.

    Nothing is ignored: what would do nothing is an error.
    """
    stated = [name for name in given if name in _RULES and not (given[name] is None and name in _MAY_BE_NONE)]
    options = dict(_DEFAULTS)
    for name in stated:
        options[name] = _RULES[name].check(op, name, given[name])
    for name in stated:
        _, beside, other, values = _RULES[name]
        if beside is not None and given.get(beside) is None:
            refuse_unused(op, name, given[name], f"without {beside}")
        if other is not None and options[other] not in values:
            refuse_unused(op, name, given[name], f"with {other}={options[other]!r}")
    options["engine_rows"] = options.pop("engine_level") == "row"
    return options
