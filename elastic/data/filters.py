"""Which problems of a source are kept."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from elastic.data.columns import Row
from elastic.data.problem import Problem

_INTEGER = re.compile(r"[-+]?\d+|[-+]?\d{1,3}(,\d{3})+")
_NUMBER = re.compile(rf"(?:{_INTEGER.pattern})|[-+]?\d*\.\d+|[-+]?\d+/\d+|-?\\d?frac\{{\d+\}}\{{\d+\}}")

AnswerKind = Literal["any", "integer", "number"]


@dataclass(frozen=True)
class Filters:
    """Conditions that a problem must meet; None asks for nothing.

    Attributes:
        min_prompt_chars: least length of the prompt in characters, template and suffix not counted.
        max_prompt_chars: greatest.
        min_pass_rate: least share of some model's answers that was right, in [0, 1], from the set's column.
        max_pass_rate: greatest.
        answer_kind: ``integer``, or ``number``, which also takes decimals and fractions; ``any``.

    Raises:
        ValueError: a limit out of range, or a least one above the greatest.
    """

    min_prompt_chars: int | None = None
    max_prompt_chars: int | None = None
    min_pass_rate: float | None = None
    max_pass_rate: float | None = None
    answer_kind: AnswerKind = "any"

    def __post_init__(self) -> None:
        for low, high, most in (
            ("min_prompt_chars", "max_prompt_chars", None),
            ("min_pass_rate", "max_pass_rate", 1),
        ):
            limits = {name: value for name in (low, high) if (value := getattr(self, name)) is not None}
            for name, value in limits.items():
                if value < 0 or (most is not None and value > most):
                    raise ValueError(
                        f"{name}: must be {'at least 0' if most is None else 'in [0, 1]'}, got {value}"
                    )
            if len(limits) == 2 and limits[low] > limits[high]:
                raise ValueError(f"{low}: must be at most {high} = {limits[high]}, got {limits[low]}")
        if self.answer_kind not in ("any", "integer", "number"):
            raise ValueError(f"answer_kind: must be any, integer or number, got {self.answer_kind!r}")

    def objection(self, problem: Problem, row: Row) -> str:
        """Why a problem is left out; empty for one that is kept.

        Raises:
            ValueError: a pass rate is asked for, and the row has none.
        """
        chars = len(problem.prompt)
        if self.min_prompt_chars is not None and chars < self.min_prompt_chars:
            return f"prompts shorter than {self.min_prompt_chars} characters"
        if self.max_prompt_chars is not None and chars > self.max_prompt_chars:
            return f"prompts longer than {self.max_prompt_chars} characters"
        if self.min_pass_rate is not None or self.max_pass_rate is not None:
            rate = _pass_rate(row)
            if rate is None:
                return "no pass rate"
            if self.min_pass_rate is not None and rate < self.min_pass_rate:
                return f"pass rates below {self.min_pass_rate:g}"
            if self.max_pass_rate is not None and rate > self.max_pass_rate:
                return f"pass rates above {self.max_pass_rate:g}"
        if self.answer_kind != "any" and not _is(self.answer_kind, problem.answer):
            return f"answers that are no {self.answer_kind}"
        return ""


def _is(kind: str, answer: str) -> bool:
    pattern = _INTEGER if kind == "integer" else _NUMBER
    return pattern.fullmatch(answer.strip().strip("$")) is not None


def _pass_rate(row: Row) -> float | None:
    value: Any = row.get("pass_rate")
    if value is None and not any(row.has(path) for path in row.paths("pass_rate")):
        raise ValueError(
            f"{row.where}: has no pass rate, it has only {sorted(row.item)}; name its column with "
            "columns = {'pass_rate': ...}"
        )
    if value is None:
        return None  # not measured
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = -1.0
    if isinstance(value, bool) or not 0 <= rate <= 1:
        raise ValueError(f"{row.place('pass_rate')}: expected a share in [0, 1], got {value!r}")
    return rate
