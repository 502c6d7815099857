"""When a claim holds: one rule for all of them.

A claim is one or more comparisons; each is a difference with a 95 % interval that resamples the problems of
all seeds together. With m comparisons every interval is widened to 1 - 0.05 / m (Bonferroni), so that all of
them are right together in 95 % of cases; nothing is widened for the number of claims. Then a claim

- holds where every interval lies above its margin, and so does the difference of every seed alone;
- does not hold where some interval lies below it, and so does the difference of every seed there;
- is open otherwise.

The intervals are about problems. A seed is a training; three are too few for an interval, so the rule asks
that all of them agree.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from elastic.evaluate.statistics import Estimate

_TAIL = 0.05 / 2


@dataclass(frozen=True)
class Comparison:
    """A difference that a claim says is positive.

    Attributes:
        at: what was compared, for tables: a budget, say.
        value: the difference over all seeds, in `unit`.
        low: lower end of its interval, jointly with the claim's other comparisons.
        high: upper end.
        seeds: the difference of each seed alone.
        margin: what the difference must exceed: 0, or a negative number where "close to" is enough.
        unit: ``share`` of the problems, or ``tokens``.
        levels: what the two have over all seeds; None for a difference of one arm.
    """

    at: str
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    margin: float = 0.0
    unit: str = "share"
    levels: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the difference exceeds the margin; None where the data do not tell."""
        if self.low > self.margin and min(self.seeds) > self.margin:
            return True
        if self.high < self.margin and max(self.seeds) < self.margin:
            return False
        return None


@dataclass(frozen=True)
class Claim:
    """A claim and what became of it.

    Attributes:
        name: short, unique.
        claim: the sentence.
        holds: True, False, or None for open.
        comparisons: all that it rests on; none where the data allow no comparison.
        note: why there is none, or what limits the outcome; else empty.
    """

    name: str
    claim: str
    holds: bool | None
    comparisons: tuple[Comparison, ...]
    note: str = ""

    @property
    def outcome(self) -> str:
        """`holds` in words."""
        return {True: "holds", False: "does not hold", None: "open"}[self.holds]

    @property
    def decisive(self) -> Comparison | None:
        """The comparison that is worst for the claim."""
        return min(self.comparisons, key=lambda item: item.low - item.margin, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The claim as JSON writes it; `low` and `high` are those of the decisive comparison."""
        worst = self.decisive
        return {
            "name": self.name,
            "claim": self.claim,
            "holds": self.holds,
            "outcome": self.outcome,
            "low": None if worst is None else worst.low,
            "high": None if worst is None else worst.high,
            "seeds": 0 if worst is None else len(worst.seeds),
            "note": self.note,
            "comparisons": [asdict(item) for item in self.comparisons],
        }


@dataclass(frozen=True)
class Difference:
    """A difference as it was measured, before the claim's number of comparisons is known.

    Attributes:
        at: as in `Comparison`.
        pooled: over all seeds, with its 95 % interval.
        seeds: of each seed alone.
        margin: as in `Comparison`.
        unit: likewise.
        levels: likewise.
    """

    at: str
    pooled: Estimate
    seeds: tuple[float, ...]
    margin: float = 0.0
    unit: str = "share"
    levels: tuple[float, float] | None = None


def decide(name: str, claim: str, differences: Sequence[Difference], note: str = "") -> Claim:
    """Applies the rule.

    Args:
        name: of the claim.
        claim: its sentence.
        differences: those that it says are above their margins; with none the claim stays open.
        note: as in `Claim`.
    """
    wider = 1.0
    if differences:
        normal = NormalDist()
        wider = normal.inv_cdf(1 - _TAIL / len(differences)) / normal.inv_cdf(1 - _TAIL)
    items = tuple(_comparison(item, wider) for item in differences)
    holds: bool | None = None
    if any(item.holds is False for item in items):
        holds = False
    elif items and all(item.holds for item in items):
        holds = True
    return Claim(name, claim, holds, items, note)


def _comparison(item: Difference, wider: float) -> Comparison:
    value, low, high = item.pooled
    return Comparison(
        item.at,
        value,
        value - wider * (value - low),
        value + wider * (high - value),
        item.seeds,
        item.margin,
        item.unit,
        item.levels,
    )
