"""Contamination: evaluated questions that stand among the training problems, word for word or nearly so.

GPT-3 (arXiv 2005.14165, appendix C) and lm-evaluation-harness go by one shared run of 13 words (GPT-3: 8 to
13). Competition problems end in phrases of more words than that ("... where m and n are relatively prime
positive integers, find m + n"), so here a share of the question must be among such runs.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from elastic.data.problem import Problem

_WORD = re.compile(r"[^\W\d_]+|\d+|[-+*/=<>^]")
# LaTeX that changes how a text looks, not what it says: sizes, alignment, \dfrac for \frac
_LOOKS = re.compile(
    r"\\(?:begin|end)\{[a-z]+\*?\}|\\(?:left|right|text|mathrm|displaystyle|quad)(?![a-z])"
    r"|\\[dt](?=frac)|\\[cl](?=dots)"
)
NEARLY_ALL = 0.6  # AIME's closing phrases make up to 0.54 of AMC's questions; reworded copies begin at 0.7
_LEAST_WORDS = 8  # a question of fewer words may stand in another by chance: it must be all of it


@dataclass(frozen=True)
class Overlap:
    """An evaluated question, and the training problem that shares most with it.

    Attributes:
        evaluation: id of the evaluated problem.
        training: id of the training problem.
        share: share of the question's words that lie in runs of n words or more which both have.
        longest_run: words of the longest run.
    """

    evaluation: str
    training: str
    share: float
    longest_run: int


def contamination(
    training: Sequence[Problem], evaluation: Sequence[Problem], *, n: int = 13, min_share: float = NEARLY_ALL
) -> list[Overlap]:
    """Evaluated problems whose question stands among the training problems.

    Texts are compared as words in lower case, numbers and operators, without other punctuation, spaces and
    LaTeX's brackets. A question of fewer than n words must stand in the training problem as a whole.

    Args:
        training: problems that a model was trained on.
        evaluation: problems that it is evaluated on.
        n: least length of a shared run in words.
        min_share: least share of the question in such runs, in (0, 1].

    Returns:
        One record for each problem that is found, in the order of `evaluation`.

    Raises:
        ValueError: `n` below 1, or `min_share` outside (0, 1].
    """
    if n < 1:
        raise ValueError(f"contamination: n must be at least 1, got {n}")
    if not 0 < min_share <= 1:
        raise ValueError(f"contamination: min_share must be in (0, 1], got {min_share}")
    questions = [_words(problem.prompt) for problem in evaluation]
    index = _Index(questions, n)
    found: dict[int, Overlap] = {}
    for problem in training:
        for number, starts in index.shared(_words(problem.prompt)).items():
            size = len(questions[number])
            share, run = _covered(starts, min(n, size), size)
            best = found.get(number)
            if share >= min_share and (best is None or share > best.share):
                found[number] = Overlap(evaluation[number].id, problem.id, share, run)
    return [found[number] for number in sorted(found)]


class _Index:
    """Runs of words of the questions, and where they begin."""

    def __init__(self, questions: Sequence[list[str]], n: int) -> None:
        self._places: defaultdict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        self._whole: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._lengths: defaultdict[str, set[int]] = defaultdict(set)  # of the runs, by their first word
        for number, words in enumerate(questions):
            if len(words) < min(n, _LEAST_WORDS):
                self._whole[tuple(words)].append(number)
                continue
            length = min(n, len(words))
            for start in range(len(words) - length + 1):
                self._places[tuple(words[start : start + length])].append((number, start))
                self._lengths[words[start]].add(length)

    def shared(self, words: list[str]) -> dict[int, set[int]]:
        """Number of each question that shares runs with a text, and where in it such runs begin."""
        found: defaultdict[int, set[int]] = defaultdict(set)
        for start, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                for number, place in self._places.get(tuple(words[start : start + length]), ()):
                    found[number].add(place)
        for number in self._whole.get(tuple(words), ()) if words else ():
            found[number].add(0)
        return found


def _covered(starts: set[int], length: int, size: int) -> tuple[float, int]:
    """Share of `size` words in runs of `length` from `starts`, and words of their longest stretch."""
    covered, longest, stretch, end = 0, 0, 0, 0
    for start in sorted(starts):
        stretch = stretch + start + length - end if start < end else length
        covered += start + length - max(start, end)
        longest, end = max(longest, stretch), start + length
    return covered / size, longest


def _words(text: str) -> list[str]:
    return _WORD.findall(_LOOKS.sub(" ", text.lower()))
