"""The one record an evaluation yields: a method at one budget."""

from dataclasses import asdict, dataclass
from typing import Any

from elastic.evaluate.statistics import Interval


@dataclass(frozen=True)
class Row:
    """What a method did with one budget over a list of problems.

    Attributes:
        method: its name in `elastic.evaluate.methods`.
        thinking: thinking budget in tokens; None for no limit, and for a method that has none (`total`).
        solution: solution budget in tokens, None likewise.
        total: the one cap of a method that does not tell the phases apart, in tokens; else None. Such a row
            is compared with the rows whose `thinking + solution` equals it.
        problems: answers graded, one per problem.
        accuracy: share of correct answers.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        accuracy_cut: share of correct answers among those whose thought was ended from outside; None where
            none was.
        tokens: mean length of a completion in tokens, markers and forced tokens included.
        thinking_tokens: mean sampled thinking tokens.
        solution_tokens: mean sampled solution tokens.
        cut: share of thoughts that were ended from outside.
    """

    method: str
    thinking: int | None
    solution: int | None
    total: int | None
    problems: int
    accuracy: float
    low: float
    high: float
    accuracy_cut: float | None
    tokens: float
    thinking_tokens: float
    solution_tokens: float
    cut: float

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the accuracy."""
        return Interval(self.low, self.high)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing limited the answer's length but the model's context."""
        return self.thinking is None and self.solution is None and self.total is None

    @property
    def allowance(self) -> float:
        """Most tokens both phases may take together; infinite without a limit."""
        if self.total is not None:
            return self.total
        if self.thinking is None or self.solution is None:
            return float("inf")
        return self.thinking + self.solution

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON writes it."""
        return asdict(self)
