"""The table of a training configuration that says what rollouts may spend."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from elastic.budget import Budget
from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class BudgetConfig(Section):
    """``[budget]``: what rollouts may spend (SPEC section 2), the paper's (1K, 1K) by default.

    Attributes:
        thinking: most sampled thinking tokens t*.
        solution: most sampled solution tokens s*.
        total: one cap over both; with ``thinking = "unlimited"`` this is the vanilla hard cut, and
            ``solution`` is unlimited by default.
        closing: what is forced when thinking is cut: a preset's name or a text; absent for the bare marker.
        on_eos: EOS while thinking: ``close`` replaces it with the closing, ``stop`` ends the row.
        on_reopen: a start marker in the solution: ``count`` or ``forbid``.
        on_reclose: an end marker behind a forced close: ``count`` or ``forbid``.
        whole_characters: whether a cut waits, at most three tokens, for the end of a character.
        min_thinking: thinking tokens before which an end is replaced by ``extension``.
        extension: that text.
        max_extensions: how often.
        notices: [used thinking tokens, text] pairs, forced while thinking goes on.
        grace: tokens past ``thinking`` in which a boundary token is waited for.
        boundary: texts a boundary token ends in; absent for newline and sentence ends.
        draw: ``fixed``; ``random``: each group's budgets uniform in [``*_low``, budget]; ``curriculum``:
            from ``*_start``, above or below it, to the budget over ``curriculum_steps``; ``problem``: each
            problem's own, from columns of the data.
        thinking_low: least thinking budget of ``random``.
        solution_low: least solution budget of ``random``; absent for always the full one.
        thinking_start: first thinking budget of ``curriculum``.
        solution_start: first solution budget of ``curriculum``; absent for always the full one.
        curriculum_steps: steps until the budget itself is reached.
        curriculum: how ``curriculum`` gets there: ``linear``, or ``exponential``, by one factor a step
            (arXiv 2508.08940 multiplies its budget by one factor every few steps).
        thinking_column: column of ``problem``'s thinking budgets, whole numbers up to ``thinking``, or its
            dotted path; absent for always the full one.
        solution_column: column of its solution budgets, up to ``solution``; likewise.
        cuts: thinking budgets at which each thought is cut, increasing, at most ``thinking``, which is by
            default the last one; absent for whole rollouts. Thoughts go on to the last cut
            (`elastic.train.collect.anytime`, arXiv 2505.13438).
        cut_weights: of the rewards at each cut, in proportion; by default all alike.
        cut_samples: solutions behind each cut of a thought.
    """

    TABLE: ClassVar[str] = "budget"

    thinking: int | Literal["unlimited"] = limited(1024, low=0)
    solution: int | Literal["unlimited"] = limited(1024, low=1)
    total: int | None = limited(None, low=1)
    closing: str | None = None
    on_eos: Literal["close", "stop"] = "close"
    on_reopen: Literal["count", "forbid"] = "count"
    on_reclose: Literal["count", "forbid"] = "count"
    whole_characters: bool = False
    min_thinking: int = limited(0, low=0)
    extension: str = "Wait"
    max_extensions: int = limited(0, low=0)
    notices: tuple[tuple[int, str], ...] = ()
    grace: int = limited(0, low=0)
    boundary: tuple[str, ...] | None = None
    draw: Literal["fixed", "random", "curriculum", "problem"] = "fixed"
    thinking_low: int = limited(0, low=0)
    solution_low: int | None = limited(None, low=1)
    thinking_start: int | None = limited(None, low=0)
    solution_start: int | None = limited(None, low=1)
    curriculum_steps: int | None = limited(None, low=1)
    curriculum: Literal["linear", "exponential"] = "linear"
    thinking_column: str | None = None
    solution_column: str | None = None
    cuts: tuple[int, ...] | None = limited(None, low=0)
    cut_weights: tuple[float, ...] | None = limited(None, low=0)
    cut_samples: int = limited(1, low=1)

    def check(self) -> None:
        self._check_cuts()
        if self.draw == "problem":
            self._check_columns()
        if self.draw in ("fixed", "problem"):
            return
        if isinstance(self.thinking, str):
            raise ValueError(f"budget.draw: '{self.draw}' needs a finite budget.thinking, got 'unlimited'")
        if self.draw == "random" and self.thinking_low > self.thinking:
            raise ValueError(
                f"budget.thinking_low: must be at most budget.thinking = {self.thinking}, "
                f"got {self.thinking_low}"
            )
        low = self.solution_low
        if self.draw == "random" and low and (isinstance(self.solution, str) or low > self.solution):
            raise ValueError(
                f"budget.solution_low: must be at most a finite budget.solution, got {low} "
                f"with budget.solution = {self.solution!r}"
            )
        if self.draw == "curriculum":
            for name in ("thinking_start", "curriculum_steps"):
                if getattr(self, name) is None:
                    raise ValueError(f"budget.{name}: budget.draw = 'curriculum' needs it")
            if self.solution_start is not None and isinstance(self.solution, str):
                raise ValueError("budget.solution_start: needs a finite budget.solution, got 'unlimited'")
            if self.curriculum == "exponential" and 0 in (self.thinking, self.thinking_start):
                raise ValueError(
                    "budget.curriculum: 'exponential' needs budget.thinking and budget.thinking_start of at "
                    f"least 1, got {self.thinking} and {self.thinking_start}: no factor leads from or to 0"
                )

    def _check_columns(self) -> None:
        if not self.columns:
            raise ValueError(
                "budget.thinking_column: budget.draw = 'problem' needs it, or budget.solution_column"
            )
        for name in self.columns:
            if isinstance(getattr(self, name), str):
                raise ValueError(f"budget.{name}_column: needs a finite budget.{name}, got 'unlimited'")

    @property
    def columns(self) -> dict[str, str]:
        """``thinking`` and ``solution``, each with its column; empty unless problems have budgets."""
        named = {"thinking": self.thinking_column, "solution": self.solution_column}
        return {name: column for name, column in named.items() if column and self.draw == "problem"}

    def _check_cuts(self) -> None:
        cuts, weights = self.cuts, self.cut_weights
        if cuts is None:
            return
        if not cuts or list(cuts) != sorted(set(cuts)):
            raise ValueError(f"budget.cuts: must be increasing numbers of tokens, got {list(cuts)}")
        if self.draw != "fixed":
            raise ValueError(f"budget.cuts: needs budget.draw = 'fixed', got '{self.draw}'")
        if weights is not None and (len(weights) != len(cuts) or sum(weights) == 0):
            raise ValueError(
                f"budget.cut_weights: must be {len(cuts)} numbers, one per cut, and not all 0, got "
                f"{list(weights)}"
            )

    def cut_budgets(self) -> list[Budget]:
        """The budget at each of ``cuts``; notices that it would never reach are left out.

        Raises:
            ValueError: one of them is impossible (SPEC R14, R17).
        """
        whole = self.budget()
        try:
            return [
                replace(
                    whole, thinking=cut, notices=tuple(notice for notice in whole.notices if notice[0] < cut)
                )
                for cut in self.cuts or ()
            ]
        except ValueError as error:
            raise ValueError(f"budget.cuts: {error}") from error

    def budget(self) -> Budget:
        """The budget that the keys state, at which a curriculum arrives.

        Raises:
            ValueError: it is impossible (SPEC R14, R17).
        """
        try:
            return Budget(
                _limit(self.thinking),
                _limit(self.solution),
                self.total,
                closing=self.closing,
                on_eos=self.on_eos,
                on_reopen=self.on_reopen,
                on_reclose=self.on_reclose,
                whole_characters=self.whole_characters,
                min_thinking=self.min_thinking,
                extension=self.extension,
                max_extensions=self.max_extensions,
                notices=self.notices,
                grace=self.grace,
                boundary=self.boundary,
            )
        except ValueError as error:
            raise ValueError(f"[budget]: {error}") from error

    def bounds(self) -> tuple[Budget, Budget]:
        """The smallest and the largest budget that `draw` gives, each in both phases.

        What problems have is not known here: their largest stands for all (`elastic.train.collect.budgets`).

        Raises:
            ValueError: one of them is impossible (SPEC R14, R17).
        """
        final = self.budget()
        if self.draw in ("fixed", "problem"):
            return final, final
        random = self.draw == "random"
        thinking = [final.thinking, self.thinking_low if random else self.thinking_start]
        solution = [final.solution, (self.solution_low if random else self.solution_start) or final.solution]
        try:
            smallest, largest = (
                replace(final, thinking=t, solution=s)
                for t, s in zip(_ordered(thinking), _ordered(solution), strict=True)
            )
        except ValueError as error:
            raise ValueError(f"[budget]: {error}") from error
        return smallest, largest


def _ordered(limits: list[int | None]) -> list[int | None]:
    """Two limits, the lesser first; `check` lets None stand only beside None."""
    finite: list[int | None] = [*sorted(limit for limit in limits if limit is not None)]
    return finite or limits


def _limit(value: int | str) -> int | None:
    return None if isinstance(value, str) else value
