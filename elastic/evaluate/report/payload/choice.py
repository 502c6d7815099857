"""Which problems and which budgets a page has room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elastic.evaluate.report.payload.places import Place
from elastic.evaluate.report.payload.thinned import thinned

FEWEST_PLACES = 3  # of a kind: a tight budget, a loose one and one in between
_ROOM = (250, 5, 900)  # bytes for an answer's numbers, for a token, and for both at most


class Arm(NamedTuple):
    """A method of a run."""

    run: str
    method: str


class ProblemKey(NamedTuple):
    """A problem: equal ids with other prompts are other problems."""

    data: str
    id: str
    prompt: str


# What became of the answers: right, wrong or not graded, by arm at each place
Verdicts = dict[Place, dict[Arm, float | None]]


@dataclass(frozen=True)
class Choice:
    """What is shown.

    Attributes:
        problems: in the order in which they are shown.
        places: ascending, budgets before steps.
    """

    problems: list[ProblemKey]
    places: list[Place]


def choose(found: Mapping[ProblemKey, Verdicts], most_problems: int, room: int, mean_tokens: float) -> Choice:
    """Problems on which arms differ at some place come first, else all stand as they came.

    Where not every answer has room, places go first, down to a few that are evenly spaced, then problems.

    Args:
        found: every problem.
        most_problems: at least 1.
        room: bytes for all answers.
        mean_tokens: of an answer.
    """
    bytes_each, bytes_token, most_bytes = _ROOM
    most_answers = room / min(bytes_each + bytes_token * mean_tokens, most_bytes)
    ordered = sorted(found, key=lambda key: not _differ(found[key]))  # stable
    known = sorted({place for verdicts in found.values() for place in verdicts})
    places = _thinned(known, len(known))
    count = len(known)
    while count > FEWEST_PLACES and _answers(found, ordered[:most_problems], places) > most_answers:
        count -= 1
        places = _thinned(known, count)
    kept: list[ProblemKey] = []
    answers = 0
    for key in ordered:
        answers += _answers(found, [key], places)
        if len(kept) == most_problems or (kept and answers > most_answers):
            break
        kept.append(key)
    return Choice(kept, places)


def _differ(verdicts: Verdicts) -> bool:
    return any(len(set(of_arms.values()) - {None}) > 1 for of_arms in verdicts.values())


def _answers(
    found: Mapping[ProblemKey, Verdicts], problems: Sequence[ProblemKey], places: Sequence[Place]
) -> int:
    return sum(len(found[key].get(place, ())) for key in problems for place in places)


def _thinned(places: Sequence[Place], most: int) -> list[Place]:
    """At most so many of each kind, evenly spaced, both ends among them."""
    kept = []
    for kind in dict.fromkeys(place.kind for place in places):
        of_kind = [place for place in places if place.kind == kind]
        kept += thinned(of_kind, most)
    return kept
