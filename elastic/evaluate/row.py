"""The one record an evaluation yields: a method at one budget on one set."""

from dataclasses import asdict, dataclass
from typing import Any

from elastic.evaluate.statistics import Interval


@dataclass(frozen=True)
class Row:
    """What a method did with one budget over a list of problems.

    Means are over problems, each the mean over its answers: a problem with more answers weighs no more.

    Attributes:
        method: its name in `elastic.evaluate.methods`.
        thinking: thinking budget in tokens; None for no limit, and for a method that has none (`total`).
        solution: solution budget in tokens, None likewise.
        total: the one cap of a method that does not tell the phases apart, in tokens; else None. Such a row
            is compared with the rows whose `thinking + solution` equals it.
        problems: how many there were.
        accuracy: share of correct answers among the graded ones.
        low: lower end of its 95 % interval: bootstrap over problems, Wilson's where that has no width.
        high: upper end.
        accuracy_cut: share of correct answers among all those whose thought was ended from outside; None
            where none was.
        tokens: mean length of a completion in tokens, markers and forced tokens included.
        thinking_tokens: mean sampled thinking tokens.
        solution_tokens: mean sampled solution tokens.
        cut: share of thoughts that were ended from outside.
        data: the set that the problems are from.
        samples: answers per problem; the most of any problem.
        ungraded: answers that the reward could not judge: in all means but the accuracies.
        answered: share of answers that came to their solution at all.
        pass_at_k: unbiased chance that one of k answers is right, by k as text (JSON knows no other keys).
        solution_tokens_cut: mean solution tokens of all answers behind cut thoughts; None where none is.
        solution_tokens_whole: of all answers behind whole ones; None likewise.
        leakage: how many times longer solutions are behind cut thoughts than behind whole ones of the same
            problem, see `elastic.evaluate.statistics.leakage`; None where no problems have both.
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
    data: str
    samples: int
    ungraded: int
    answered: float
    pass_at_k: dict[str, float]
    solution_tokens_cut: float | None
    solution_tokens_whole: float | None
    leakage: float | None

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
