"""pass@k: the chance that at least one of k answers is right."""

from collections.abc import Iterable

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.bootstrap import bootstrap_mean
from elastic.evaluate.statistics.intervals import Estimate
from elastic.evaluate.statistics.problems import by_problem, grades


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """The unbiased estimate 1 - C(n - c, k) / C(n, k) of one problem with n answers, c of them right.

    Args:
        correct: c, in [0, n].
        samples: n, answers drawn independently.
        k: in [1, n].

    Raises:
        ValueError: a count out of range; with k above n there is no unbiased estimate.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374, equation 1.
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"pass_at_k: correct must be in [0, samples={samples}], got {correct}")
    if not 1 <= k <= samples:
        raise ValueError(f"pass_at_k: k must be in [1, samples={samples}], got {k}")
    missed = 1.0
    for wrong in range(samples - correct - k + 1, samples - correct + 1):
        # C(n - c, k) / C(n, k), factor by factor: the binomials themselves outgrow a float. With fewer than k
        # wrong answers one factor is 0.
        missed *= wrong / (wrong + correct)
    return 1.0 - missed


def mean_pass_at_k(answers: Iterable[Sample], k: int) -> Estimate:
    """The mean of `pass_at_k` over problems, with its interval.

    n is each problem's number of graded answers. Problems with fewer than k are left out: all their
    estimates would be biased.

    Raises:
        ValueError: no problem has k graded answers.
    """
    graded = [grades(found) for found in by_problem(answers).values()]
    values = [pass_at_k(int(sum(found)), len(found), k) for found in graded if len(found) >= max(k, 1)]
    if not values:
        most = max(map(len, graded), default=0)
        raise ValueError(f"pass_at_k: k must be in [1, {most}], the graded answers per problem, got {k}")
    return bootstrap_mean(values)
