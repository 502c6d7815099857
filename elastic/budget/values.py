"""The fields of a budget, checked when it is made: plain data that the compiled tables are made from.

Rule numbers (R1...) are those of the specification of the budget state machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from elastic.budget import checks
from elastic.budget.checks import Text
from elastic.budget.kinds import Phase

# Closing texts by name; {end} stands for the end marker's text. None: the bare marker, as in the paper.
CLOSINGS: dict[str, str | None] = {
    "bare": None,
    "qwen3": "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n{end}\n\n",
    "scalerl": "\n\nOkay, time is up. Let me stop thinking and formulate a final answer now.\n{end}\n\n",
    "s1": "\n{end}\n\nFinal Answer:",
    # The answer follows at once, without a solution around it (arXiv 2504.09858).
    "force-answer": "\n{end}\n\n**Final Answer**\n\n\\boxed{",
}


class _Default(int):
    """An integer that can be told apart from the same number given by the caller."""


_DEFAULT_SOLUTION = _Default(1024)


@dataclass(frozen=True)
class BudgetValues:
    """The fields of a `Budget` (see its docstring) and the checks of their values (R14, R17)."""

    thinking: int | None = 1024
    solution: int | None = _DEFAULT_SOLUTION
    total: int | None = None
    closing: Text | None = field(default=None, kw_only=True)
    on_eos: str = field(default="close", kw_only=True)
    on_reopen: str = field(default="count", kw_only=True)
    on_reclose: str = field(default="count", kw_only=True)
    min_thinking: int = field(default=0, kw_only=True)
    extension: Text = field(default="Wait", kw_only=True)
    max_extensions: int = field(default=0, kw_only=True)
    notices: tuple[tuple[int, Text], ...] = field(default=(), kw_only=True)
    grace: int = field(default=0, kw_only=True)
    boundary: tuple[str | int, ...] | None = field(default=None, kw_only=True)
    whole_characters: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.solution is _DEFAULT_SOLUTION:
            hard_cut = self.thinking is None and self.total is not None
            self._set("solution", None if hard_cut else int(_DEFAULT_SOLUTION))
        for name, least in (("thinking", 0), ("solution", 1), ("total", 1)):
            value = getattr(self, name)
            self._set(name, None if value is None else checks.integer(name, value, least, " or None"))
        for name in ("min_thinking", "grace"):
            self._set(name, checks.integer(name, getattr(self, name), 0))
        most = checks.MOST_EXTENSIONS
        self._set("max_extensions", checks.integer("max_extensions", self.max_extensions, 0, most=most))
        checks.choice("on_eos", self.on_eos, ("close", "stop"))
        checks.choice("on_reopen", self.on_reopen, ("count", "forbid"))
        checks.choice("on_reclose", self.on_reclose, ("count", "forbid"))
        checks.flag("whole_characters", self.whole_characters)
        if self.closing is not None:
            self._set("closing", checks.text("closing", self.closing))
        self._set("extension", checks.text("extension", self.extension))
        self._set("notices", checks.notices(self.notices))
        self._set("boundary", checks.boundary(self.boundary))
        self._check_together()

    def __repr__(self) -> str:
        """Thinking, solution and every field that is not at its default: short, for error messages."""
        others = (f for f in fields(self)[2:] if getattr(self, f.name) != f.default)
        named = (f"{f.name}={getattr(self, f.name)!r}" for f in others)
        return f"Budget({', '.join([repr(self.thinking), repr(self.solution), *named])})"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_together(self) -> None:
        if self.total is not None:
            if self.thinking is None and self.solution is not None:
                raise ValueError(
                    f"total={self.total}: with thinking=None it cuts hard and leaves no solution budget to "
                    f"keep; give thinking, or solution=None, got solution={self.solution}"
                )
            least = 0 if self.thinking is None else self.thinking + self.grace + 1
            if self.total < least:
                raise ValueError(
                    f"total: expected at least thinking + grace + 1 = {least}, so that a solution token is "
                    f"left, got {self.total}"
                )
        if (self.min_thinking > 0) != (self.max_extensions > 0):
            raise ValueError(
                "min_thinking and max_extensions: one has no effect without the other, "
                f"got {self.min_thinking} and {self.max_extensions}"
            )
        if self.thinking is not None and self.min_thinking > self.thinking:
            raise ValueError(
                f"min_thinking: expected at most thinking={self.thinking}, got {self.min_thinking}"
            )
        if self.thinking is not None and self.notices and self.notices[-1][0] >= self.thinking:
            raise ValueError(
                f"notices: expected fewer used tokens than thinking={self.thinking}, "
                f"got {self.notices[-1][0]}, which would never be reached"
            )
        if self.grace > 0 and self.thinking is None:
            raise ValueError(f"grace: expected 0 with thinking=None, got {self.grace}")
        if self.boundary is not None and self.grace == 0:
            raise ValueError(f"boundary: has no effect with grace=0, got {self.boundary!r}")

    @property
    def max_thinking(self) -> int | None:
        """Most thinking tokens a row may sample, grace and whole characters included; None is unlimited."""
        if self.thinking is None:
            return None
        return self.thinking + (self.grace if self.thinking > 0 else 0) + self._waits

    @property
    def max_sampled(self) -> int | None:
        """Most sampled tokens that count against a budget; None is unlimited. Natural markers come on top."""
        return self.sampled_from(Phase.THINKING)

    def sampled_from(self, phase: Phase, thinking_used: int = 0) -> int | None:
        """`max_sampled` of a row that starts in this phase, with so many tokens thought already (R19)."""
        if self.thinking is not None:  # as many as a row can have thought itself
            thinking_used = min(thinking_used, self.thinking + (self.grace if self.thinking else 0))
        limits = [] if self.total is None else [max(self.total - thinking_used, 0)]
        if phase == Phase.SOLUTION:
            limits += [] if self.solution is None else [self.solution]
        elif self.thinking is not None and self.solution is not None:
            left = self.thinking + self.grace - thinking_used if thinking_used < self.thinking else 0
            limits.append(left + self.solution)
        return min(limits) + self._waits if limits else None

    @property
    def _waits(self) -> int:
        """Tokens that the cuts of one row may wait for whole characters (R21)."""
        return 3 if self.whole_characters else 0
