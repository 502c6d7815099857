"""Leakage: does the solution grow because the thought was cut?

A model whose thought is ended from outside may go on reasoning in its solution. Accuracy then holds up while
the tokens only move from one phase to the other. Wu et al. (Are Large Reasoning Models Interruptible?, arXiv
2510.11713) call it reasoning leakage: they take a whole thought, end it at a share X of its length and
compare the lengths of the answers. Here samples are what an evaluation has, so two measures of one method on
one set:

- `leakage`, a ratio: mean solution tokens behind cut thoughts over mean solution tokens behind whole ones,
  over the problems that have both. 1: the solution does not care; above 1: it grows.
- `leakage_slope`, in tokens: how solutions change with the share of the thought that was seen, within
  problems. Negative: the less was seen, the longer the solution. The share is the cut answer's thinking
  tokens over the mean thinking tokens of the same problem's whole thoughts; it passes 1 where a cut thought
  was longer.

An answer that never came to its solution has no solution to measure and is left out, so a method that cuts
hard has no leakage. A solution that its own budget cut counts as long as it got: under a tight solution
budget both measures understate. Short thoughts stay whole more often than long ones; comparing within
problems takes out what is due to the problem, not what is due to the thought. Cuts of one thought at several
points do (`elastic.rollout.cuts`).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.bootstrap import bootstrap, ratio
from elastic.evaluate.statistics.intervals import Estimate
from elastic.evaluate.statistics.problems import by_problem, mean

_FEWEST = 2  # problems; one alone gives no interval


def solution_lengths(samples: Iterable[Sample], *, cut: bool) -> list[int]:
    """Solution tokens of the answers that came to their solution behind a cut thought, or a whole one."""
    return [sample.solution_tokens for sample in samples if sample.answered and sample.cut == cut]


def leakage(cut: Sequence[Sample], whole: Sequence[Sample]) -> Estimate | None:
    """Mean solution tokens behind cut thoughts over those behind whole ones, problem by problem.

    Args:
        cut: answers whose cut thoughts count, for a row those under its budget.
        whole: answers whose whole thoughts count: the same method's under all its budgets.

    Returns:
        The ratio of the means over problems, with a bootstrap interval; None where fewer than two problems
        have both kinds, or where whole thoughts have no solution tokens.
    """
    behind_whole = {key: solution_lengths(found, cut=False) for key, found in by_problem(whole).items()}
    pairs = [
        (mean(lengths), mean(behind_whole[key]))
        for key, found in by_problem(cut).items()
        if (lengths := solution_lengths(found, cut=True)) and behind_whole.get(key)
    ]
    if len(pairs) < _FEWEST:
        return None
    above, below = np.array(pairs, dtype=np.float64).T
    if not below.sum():
        return None
    return bootstrap(lambda counts: ratio(counts, above, below), len(pairs))


def leakage_slope(samples: Sequence[Sample]) -> Estimate | None:
    """Change of the solution's tokens as the share of the thought that was seen goes from 0 to 1.

    The least-squares slope over cut answers, with a level of its own for each problem.

    Args:
        samples: the answers of one method under all its budgets.

    Returns:
        The slope in tokens, with a bootstrap interval over problems; None where fewer than two problems have
        a whole thought and answers cut at different points.
    """
    sums = [_sums(found) for found in by_problem(samples).values()]
    kept = [found for found in sums if found is not None]
    if len(kept) < _FEWEST:
        return None
    above, below = np.array(kept, dtype=np.float64).T
    return bootstrap(lambda counts: ratio(counts, above, below), len(kept))


def _sums(answers: Sequence[Sample]) -> tuple[float, float] | None:
    """(sum of x y, sum of x^2) about a problem's means; None where it has no slope."""
    whole = [sample.thinking_tokens for sample in answers if sample.answered and not sample.cut]
    cut = [sample for sample in answers if sample.answered and sample.cut]
    if not cut or not sum(whole):
        return None
    x = np.array([sample.thinking_tokens for sample in cut]) / mean(whole)
    y = np.array([sample.solution_tokens for sample in cut], dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    spread = float(x @ x)
    return (float(x @ y), spread) if spread > 0 else None
