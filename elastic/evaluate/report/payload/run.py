"""A finished run as the report reads it, wherever its files are from."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from elastic.data import Problem
from elastic.evaluate.row import Row
from elastic.evaluate.sample import Sample

Kind = Literal["evaluation", "training", "demo", "replicate"]


class Answer(NamedTuple):
    """One answer of a run.

    Attributes:
        sample: with its text where that was kept.
        step: of the training that it is from; None for an evaluation's.
    """

    sample: Sample
    step: int | None = None


@dataclass(frozen=True)
class Training:
    """The curves of one training.

    Attributes:
        name: of its method or folder.
        records: of `metrics.jsonl`, each with a ``step``; steps and evaluations.
        label: of its line in every chart; empty for the name.
    """

    name: str
    records: Sequence[Mapping[str, Any]]
    label: str = ""


@dataclass(frozen=True, eq=False)
class ReportRun:
    """One run.

    Attributes:
        name: unique in a report.
        kind: what wrote it.
        facts: what a reader wants to know of it, by name.
        rows: of its table.
        answers: reads its answers, each time anew and in the same order: texts may be larger than memory.
        problems: by (set, id), as far as they are known.
        labels: what a reader sees for a method; those of `elastic.evaluate.methods` need none.
        drawn: methods and trainings whose lines charts begin with, where not with all of them.
        trainings: their curves.
        claims: what was claimed and how it came out: `claim`, `outcome`, `low`, `high`.
        notes: what a reader must know of it, in sentences.
    """

    name: str
    kind: Kind
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    answers: Callable[[], Iterable[Answer]] = tuple
    problems: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    drawn: Collection[str] | None = None
    trainings: Sequence[Training] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    def hides(self, name: str) -> bool:
        """Whether charts begin without the line of a method or training."""
        return self.drawn is not None and name not in self.drawn
