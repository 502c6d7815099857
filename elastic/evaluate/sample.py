"""One graded answer: what an evaluation keeps of every completion, a line of `samples.jsonl`."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One completion of one problem under one method and budget.

    Attributes:
        data: the set that the problem is from.
        method: its name in `elastic.evaluate.methods`.
        thinking: thinking budget in tokens; None for no limit, and for a method that has none (`total`).
        solution: solution budget in tokens, None likewise.
        total: the one cap of a method that does not tell the phases apart, in tokens; else None.
        problem: the problem's id, unique within `data`.
        sample: number of the answer among those to this problem, from 0.
        correct: 1.0 or 0.0; None where the reward could not judge.
        tokens: everything emitted, markers and forced tokens included: what was paid.
        thinking_tokens: sampled thinking tokens.
        solution_tokens: sampled solution tokens.
        cut: whether the thought was ended from outside.
        answered: whether the row came to its solution at all.
        finish_reason: as in `elastic.FinishReason.text`.
        segments: (kind, text) runs of the completion, kinds as in `elastic.evaluate.report.segments`; empty
            where texts were not kept.
    """

    data: str
    method: str
    thinking: int | None
    solution: int | None
    total: int | None
    problem: str
    sample: int
    correct: float | None
    tokens: int
    thinking_tokens: int
    solution_tokens: int
    cut: bool
    answered: bool
    finish_reason: str
    segments: tuple[tuple[str, str], ...] = ()

    @property
    def budget(self) -> tuple[int | None, int | None, int | None]:
        """(thinking, solution, total): rows of a table tell samples apart by it."""
        return self.thinking, self.solution, self.total

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON writes it; without `segments` where it has none."""
        record = asdict(self)
        if not self.segments:
            del record["segments"]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Sample":
        """The sample that `to_dict` wrote, also after a way through JSON.

        Raises:
            TypeError: a field is missing, or one that no sample has.
        """
        segments = tuple((kind, text) for kind, text in record.get("segments", ()))
        return cls(**record | {"segments": segments})
