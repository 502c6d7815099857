"""How an answer reasons: numbers of its text and its lengths that show what a training changed.

They are descriptions, no quality: a re-check may find a slip or waste tokens.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.problems import mean

# Words with which reasoning models go back on a step: self-reflection as counted by Liu et al. (arXiv
# 2503.20783), changes of approach ("alternatively") by Wang et al. (arXiv 2501.18585), "wait" of s1 (arXiv
# 2501.19393).
RECHECKS = (
    *("wait", "hm", "hmm", "hold on", "alternatively", "on second thought", "actually, no"),
    *("check", "double check", "verify", "recheck", "reconsider", "rethink", "re-examine", "re-evaluate"),
)
GRAM = 4  # words
_SAMPLED = ("thinking", "solution")


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """One re-check: a phrase, or several with nothing between them ("Hmm, wait, let me double-check")."""
    longest = sorted(phrases, key=len, reverse=True)
    phrase = "|".join(re.escape(words).replace(r"\ ", r"[\s-]+").replace(r"\-", "-?") for words in longest)
    between = r"\W+(?:let\s+me\s+|let\W?s\s+)?"
    return re.compile(rf"\b(?:{phrase})\b(?:{between}(?:{phrase})\b)*")


_RECHECK = _pattern(RECHECKS)
_RESULT = re.compile(r"=\s*-?\d")


@dataclass(frozen=True)
class Reasoning:
    """Measures of one answer; what the decoder forced counts in none of them.

    Attributes:
        rechecks: how often it goes back on a step in thinking and solution, see `count_rechecks`.
        repetition: share of its runs of four words that stood before.
        solution_share: solution tokens over all sampled tokens; None where none was sampled.
        steps_in_solution: share of its results (an equals sign and a number) that the solution computes; None
            where it has no result.
    """

    rechecks: int
    repetition: float
    solution_share: float | None
    steps_in_solution: float | None

    def to_dict(self) -> dict[str, Any]:
        """The measures as JSON writes them, shares in three digits."""
        return {
            key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def reasoning(sample: Sample) -> Reasoning:
    """The measures of an answer whose text was kept.

    Raises:
        ValueError: it has no segments.
    """
    if not sample.segments:
        raise ValueError(f"reasoning: the text of {sample.data}/{sample.problem} was not kept")
    texts = [text for kind, text in sample.segments if kind in _SAMPLED]
    results = {
        kind: sum(len(_RESULT.findall(text)) for of, text in sample.segments if of == kind)
        for kind in _SAMPLED
    }
    return Reasoning(
        rechecks=sum(count_rechecks(text) for text in texts),
        repetition=repetition(" ".join(texts)),
        solution_share=_share(sample.solution_tokens, sample.solution_tokens + sample.thinking_tokens),
        steps_in_solution=_share(results["solution"], sum(results.values())),
    )


def count_rechecks(text: str) -> int:
    """How often one of `RECHECKS` stands in a text, whole words in either case.

    Those that follow on one another are one: "Hmm, wait. Let me double-check" and "wait check :" alike.
    """
    return len(_RECHECK.findall(text.lower()))


def repetition(text: str, gram: int = GRAM) -> float:
    """1 - distinct / all runs of `gram` words: seq-rep-n of Welleck et al. (arXiv 1908.04319).

    Words are what white space divides. A text of fewer words repeats nothing.
    """
    words = text.split()
    grams = list(zip(*(words[start:] for start in range(gram)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean of what is there; None where nothing is."""
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
