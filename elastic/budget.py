"""Budgets: how many tokens a row may think, how many it may answer with, and what happens at the limits.

A `Budget` is plain data, checked when it is made. `elastic.machine` turns budgets, markers and a tokenizer
into the tables that the ops read. Rule numbers (R1...) are those of the specification of the budget state
machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from elastic import budget_checks as checks
from elastic.budget_checks import Text

if TYPE_CHECKING:
    from elastic.eos import EosIds
    from elastic.machine import Machine
    from elastic.markers import Markers


class Source(IntEnum):
    """Where an emitted token comes from. Only SAMPLED tokens carry loss and count against a budget."""

    SAMPLED = 0
    FORCED = 1
    PAD = 2


class Phase(IntEnum):
    """What a row is doing; of a token: the phase it was emitted in.

    The tokens of a natural end marker are THINKING, a forced end marker and the text before it CLOSING,
    forced text behind it SOLUTION, notices and extensions NOTICE. Of a natural end that opens something (R18)
    the token that completes it is SOLUTION.
    """

    OPENING = 0
    THINKING = 1
    CLOSING = 2
    NOTICE = 3
    SOLUTION = 4
    DONE = 5


class FinishReason(IntEnum):
    """Why a row ended. The last two are the engine's: the row reached its length limit before its budget, or
    was cancelled from outside. STOP is an EOS, or a stop string of the engine.
    """

    RUNNING = 0
    STOP = 1
    SOLUTION_BUDGET = 2
    TOTAL_BUDGET = 3
    LENGTH = 4
    CANCELLED = 5

    @property
    def text(self) -> str:
        """The name used in records: "stop", "solution_budget", ...; "" while the row runs."""
        return "" if self is FinishReason.RUNNING else self.name.lower()


# What is forced when thinking is cut; {end} stands for the end marker's text. None: the bare marker (the
# paper).
CLOSINGS: dict[str, str | None] = {
    "bare": None,
    "qwen3": "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n{end}\n\n",
    "scalerl": "\n\nOkay, time is up. Let me stop thinking and formulate a final answer now.\n{end}\n\n",
    "s1": "\n{end}\n\nFinal Answer:",
}


class _Default(int):
    """An integer that can be told apart from the same number given by the caller."""


_DEFAULT_SOLUTION = _Default(1024)


@dataclass(frozen=True)
class Budget:
    """Token budgets of one row. Texts may be strings, or token ids where no tokenizer is at hand.

    Attributes:
        thinking: most sampled thinking tokens (t), 0 allowed; None is unlimited.
        solution: most sampled solution tokens (s), at least 1, EOS included; None is unlimited. A row that
            opens its own thinking may spend them on the beginning of a start marker; what would overspend
            them is then replaced by the rest of the marker (R9).
        total: most sampled tokens of both phases (c). With `thinking=None` it cuts hard wherever the row is
            (the vanilla method, R14), and `solution` must be None, which is then its default.
        closing: F, what is forced when thinking is cut (R1): a key of `CLOSINGS`, or a text with the end
            marker (or `{end}`) exactly once. None is the bare end marker.
        on_eos: EOS while thinking: "close" replaces it with F, "stop" ends the row (R6).
        on_reopen: a start marker in the solution: "count" takes it as text, "forbid" masks the token that
            would complete it (R8; done by `force_logits_` and `sample`).
        on_reclose: an end marker in the solution behind a forced close, or another natural end that opens
            nothing: "count" takes it as text, "forbid" masks the token that would complete it (R20).
        min_thinking: an end marker or EOS before this many thinking tokens gives way to `extension` (R11), at
            most `max_extensions` times. One needs the other.
        notices: pairs (used thinking tokens, text), forced while thinking goes on (R12). A notice waits while
            an end marker is in progress and is dropped once the thinking budget is spent.
        grace: up to this many more thinking tokens until a boundary token is sampled (R13); the token that
            spends the budget may be that boundary already. `thinking=0` closes at once all the same (R9).
        boundary: strings that a boundary token's text ends in, or token ids; None with `grace` means newline
            and sentence ends.
        whole_characters: a cut that is due inside a character (UTF-8, of a byte-level or byte-fallback
            vocabulary) waits until it is whole: at most three more sampled tokens a row, which count, so that
            a budget may be exceeded by them (R21). An EOS and a natural end do not wait.

    Raises:
        ValueError: at construction, naming the argument, its value and the limit (R14, R17). What depends on
            the markers or the tokenizer (R4, R11, R12, R13) is checked by `compile`.
    """

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
        """Thinking and solution, and what else is not its default: what an error message has room for."""
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

    @classmethod
    def unlimited(cls, **options: Any) -> Budget:
        """Both phases as long as the model likes; EOS while thinking still gets an answer (R6)."""
        return cls(None, None, **options)

    @classmethod
    def vanilla(cls, total: int, **options: Any) -> Budget:
        """The vanilla method: one cap, cut hard wherever the row is, EOS ends it in any phase."""
        return cls(None, None, total, **{"on_eos": "stop", **options})

    @classmethod
    def s1(cls, thinking: int | None, solution: int | None = None, **options: Any) -> Budget:
        """s1's budget forcing: a thinking cap, then "Final Answer:"; with `max_extensions` an early stop is
        replaced by "Wait", up to the cap unless `min_thinking` is given."""
        if options.get("max_extensions") and "min_thinking" not in options and thinking is not None:
            options["min_thinking"] = thinking
        return cls(thinking, solution, **{"closing": "s1", **options})

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

    def compile(self, markers: Markers, tokenizer: Any = None, eos_ids: EosIds = None) -> Machine:
        """The tables the ops read, for this one budget; see `elastic.machine.compile_budgets`."""
        from elastic.machine import compile_budgets

        return compile_budgets([self], markers, tokenizer, eos_ids)[0]

    def max_tokens(
        self,
        markers: Markers,
        tokenizer: Any = None,
        *,
        starts_in_thinking: bool = True,
        phase: Phase | None = None,
        thinking_used: int = 0,
    ) -> int | None:
        """The most tokens a row can emit, t + s + |F| + |notices| and so on (R5): what to size a KV cache by.

        Args:
            markers: the model's markers.
            tokenizer: needed for texts given as strings, unless the markers came from a tokenizer.
            starts_in_thinking: False adds the start marker and the white space a row may open with (R9).
            phase: OPENING, THINKING or SOLUTION, instead of `starts_in_thinking`.
            thinking_used: thinking tokens that count before the row's first one (R19).

        Returns:
            Tokens, or None where the budget has no bound.

        Raises:
            ValueError: a text does not work with these markers (R4, R11, R12).
        """
        from elastic.machine import max_tokens

        if phase is None:
            phase = Phase.THINKING if starts_in_thinking else Phase.OPENING
        return max_tokens(self, markers, tokenizer, phase, thinking_used)

    def check_context(
        self,
        context_tokens: int,
        prompt_tokens: int,
        markers: Markers,
        tokenizer: Any = None,
        *,
        starts_in_thinking: bool = True,
        phase: Phase | None = None,
        thinking_used: int = 0,
    ) -> None:
        """Checks that a prompt and everything the budget allows fit into a model's context (R17).

        Raises:
            ValueError: naming the argument that does not fit, its value and the limit. An unlimited budget
                only needs room for one token: the engine's own length limit ends its rows.
        """
        if prompt_tokens >= context_tokens:
            raise ValueError(
                f"prompt: expected fewer tokens than the model's context of {context_tokens}, got "
                f"{prompt_tokens}"
            )
        for name in ("thinking", "solution", "total"):
            value = getattr(self, name)
            if value is not None and value > context_tokens:
                raise ValueError(
                    f"{name}: expected at most the model's context of {context_tokens}, got {value}"
                )
        most = self.max_tokens(
            *(markers, tokenizer),
            starts_in_thinking=starts_in_thinking,
            phase=phase,
            thinking_used=thinking_used,
        )
        if most is not None and prompt_tokens + most > context_tokens:
            raise ValueError(
                f"budget: a prompt of {prompt_tokens} tokens and at most {most} under {self} do not fit the "
                f"model's context of {context_tokens}"
            )
