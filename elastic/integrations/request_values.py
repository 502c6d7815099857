"""What a request may say about its budgets: names and values in `extra_args`, over HTTP in `vllm_xargs`.

HTTP carries strings, numbers and lists of them, and turns booleans into 0 and 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from elastic.budget import START_PHASES, Budget, Markers, Phase


@dataclass(frozen=True)
class RequestBudget:
    """What one request asked for.

    Attributes:
        budget: its budget.
        end_markers: further natural ends of its thinking (R18).
        phase: where its row starts; None: the prompt says it (R9).
        thinking_used: thinking tokens that count before the first one (R19).
        may_be_cut: whether `max_tokens` may end the row inside its thinking or its closing text.
    """

    budget: Budget
    end_markers: tuple[str, ...] = ()
    phase: Phase | None = None
    thinking_used: int = 0
    may_be_cut: bool = False

    def start(self, markers: Markers, prompt_ids: Sequence[int]) -> Phase:
        """The phase in which a completion of this prompt begins."""
        return markers.initial_phase(prompt_ids) if self.phase is None else self.phase


@dataclass(frozen=True)
class RequestValue:
    """One name that a request may give.

    Attributes:
        name: in `extra_args` and `vllm_xargs`.
        field: of `Budget` or `RequestBudget`.
        read: the field's value from the request's; raises ValueError naming the name.
        meaning: for people, in one line.
    """

    name: str
    field: str
    read: Callable[[str, Any], Any]
    meaning: str


def _limit(name: str, value: Any) -> Any:
    return None if value == -1 and not isinstance(value, bool) else value


def _plain(name: str, value: Any) -> Any:
    return value


def _flag(name: str, value: Any) -> bool:
    if value not in (0, 1) or isinstance(value, float):
        raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
    return bool(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{name}: expected a text or a list of texts, none empty, got {value!r}")
    return tuple(texts)


def _boundary(name: str, value: Any) -> Any:
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"{name}: expected a text, or a list of texts and token ids, got {value!r}")
    return value


def _notices(name: str, value: Any) -> Any:
    """Pairs, or what HTTP can carry: one list in which counts and texts alternate."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(
            f"{name}: expected a list [used tokens, text, used tokens, text, ...], got {value!r}"
        )
    if any(isinstance(item, (list, tuple)) for item in value):
        return tuple(value)
    if len(value) % 2:
        raise ValueError(f"{name}: expected pairs of used tokens and a text, got {len(value)} items")
    return tuple(zip(value[::2], value[1::2], strict=True))


def _phase(name: str, value: Any) -> Phase:
    if not isinstance(value, str) or value not in START_PHASES:
        raise ValueError(f"{name}: expected one of {', '.join(START_PHASES)}, got {value!r}")
    return START_PHASES[value]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{name}: expected 0 or more tokens, got {value!r}")
    return value


# The only list of them: checks, defaults of a server and the page's table are made from it.
VALUES = (
    RequestValue("thinking_budget", "thinking", _limit, "most thinking tokens (t); -1 or nothing: unlimited"),
    RequestValue("solution_budget", "solution", _limit, "most solution tokens (s); -1 or nothing: unlimited"),
    RequestValue(
        "total_budget", "total", _limit, "most tokens of both phases (R14); -1 or nothing: unlimited"
    ),
    RequestValue(
        "closing", "closing", _plain, "what is forced at a cut: a name, or a text with the end marker"
    ),
    RequestValue("grace", "grace", _plain, "more thinking tokens until a boundary (R13)"),
    RequestValue(
        "boundary", "boundary", _boundary, "texts that a boundary ends in; sentence ends by default"
    ),
    RequestValue(
        "min_thinking", "min_thinking", _plain, "an end before so many thinking tokens is early (R11)"
    ),
    RequestValue("max_extensions", "max_extensions", _plain, "how many early ends give way to `extension`"),
    RequestValue("extension", "extension", _plain, 'what replaces an early end; "Wait" by default'),
    RequestValue("notices", "notices", _notices, "[used tokens, text, used tokens, text, ...] (R12)"),
    RequestValue("on_eos", "on_eos", _plain, '"close" or "stop": EOS while thinking (R6)'),
    RequestValue("on_reopen", "on_reopen", _plain, '"count" or "forbid": start markers in the solution (R8)'),
    RequestValue("on_reclose", "on_reclose", _plain, '"count" or "forbid": end markers behind a cut (R20)'),
    RequestValue("whole_characters", "whole_characters", _flag, "1: cuts wait for whole characters (R21)"),
    RequestValue("end_markers", "end_markers", _texts, "further natural ends of thinking (R18)"),
    RequestValue(
        "start_in", "phase", _phase, f"{', '.join(START_PHASES)}; by default the prompt says it (R9)"
    ),
    RequestValue("thinking_used", "thinking_used", _count, "tokens already thought (R19); needs `start_in`"),
    RequestValue("may_be_cut", "may_be_cut", _flag, "1: `max_tokens` may end thinking or the closing text"),
)
BY_NAME = {value.name: value for value in VALUES}

_OF_REQUEST = ("end_markers", "phase", "thinking_used", "may_be_cut")
_FIRST_WORDS = {"thinking", "solution", "closing", "grace", "extension", "notice", "notices", "elastic"}


def read_values(given: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> RequestBudget | None:
    """The budget of a request.

    Args:
        given: `SamplingParams.extra_args`. None as a value is as if the name were not given. Names that do
            not look like ours belong to other processors.
        defaults: values of requests that do not give them.

    Returns:
        None where neither names a value of ours: such a request has no budget.

    Raises:
        ValueError: an unknown name that looks like ours, or a value that is none; names both and the limit.
    """
    own = {name: value for name, value in (given or {}).items() if value is not None}
    for name in own:
        _refuse_unknown(name)
    values = {**defaults, **{name: value for name, value in own.items() if name in BY_NAME}}
    if not values:
        return None
    fields = {BY_NAME[name].field: BY_NAME[name].read(name, value) for name, value in values.items()}
    if fields.get("thinking_used") and fields.get("phase") not in (Phase.THINKING, Phase.SOLUTION):
        raise ValueError(
            f"thinking_used: expected start_in=thinking or start_in=solution with it, got "
            f"{values['thinking_used']} without"
        )
    of_request = {name: fields.pop(name) for name in _OF_REQUEST if name in fields}
    try:
        budget = Budget(**{"thinking": None, "solution": None, **fields})
    except ValueError as error:
        raise ValueError(under_our_names(str(error))) from None
    return RequestBudget(budget, **of_request)


def values_of(request: RequestBudget) -> dict[str, Any]:
    """The values of a request: its limits, and what is not at its default.

    Where a server has defaults for other values, they hold.
    """
    budget, limits = request.budget, ("thinking", "solution", "total")
    values: dict[str, Any] = {}
    for value in VALUES:
        of = budget if hasattr(budget, value.field) else request
        default = next(field.default for field in fields(of) if field.name == value.field)
        held = getattr(of, value.field)
        if value.field in limits:
            values[value.name] = -1 if held is None else held
        elif held != default:
            values[value.name] = _carried(held)
    return values


def _carried(held: Any) -> Any:
    """A value as HTTP can carry it."""
    if isinstance(held, Phase):
        return held.name.lower()
    if isinstance(held, bool):
        return int(held)
    if isinstance(held, tuple) and held and isinstance(held[0], tuple):
        return [item for pair in held for item in pair]
    return list(held) if isinstance(held, tuple) else held


def check_defaults(defaults: Mapping[str, Any], where: str) -> None:
    """Refuses a server's defaults that no request could have.

    Raises:
        ValueError: an unknown name, or a value that is none; begins with `where`.
    """
    unknown = [name for name in defaults if name not in BY_NAME]
    if unknown:
        raise ValueError(f"{where}: unknown {unknown[0]!r}; known are {', '.join(BY_NAME)}")
    try:
        read_values({}, defaults)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _refuse_unknown(name: Any) -> None:
    if name in BY_NAME or not isinstance(name, str):
        return
    close = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.8)
    if close or name.split("_")[0] in _FIRST_WORDS:
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{name}: unknown request value{meant} Known are {', '.join(BY_NAME)}")


def under_our_names(message: str) -> str:
    """A budget's error with the request's name for the field it begins with."""
    for value in VALUES:
        for behind in (":", "="):
            if message.startswith(value.field + behind):
                return value.name + message[len(value.field) :]
    return message
