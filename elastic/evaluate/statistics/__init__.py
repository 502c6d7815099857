"""Accuracy, pass@k, differences, curves and leakage of graded answers, with 95 % intervals over problems."""

from elastic.evaluate.statistics.bootstrap import bootstrap_mean
from elastic.evaluate.statistics.curves import (
    accuracy_curve,
    area_under_curve,
    curve_pair,
    difference_at_equal_tokens,
)
from elastic.evaluate.statistics.intervals import Estimate, Interval, wilson_interval
from elastic.evaluate.statistics.leakage import leakage, leakage_slope
from elastic.evaluate.statistics.paired import SeedDifferences, paired_difference, paired_per_seed
from elastic.evaluate.statistics.pass_at_k import mean_pass_at_k, pass_at_k

__all__ = [
    "Estimate",
    "Interval",
    "SeedDifferences",
    "accuracy_curve",
    "area_under_curve",
    "bootstrap_mean",
    "curve_pair",
    "difference_at_equal_tokens",
    "leakage",
    "leakage_slope",
    "mean_pass_at_k",
    "paired_difference",
    "paired_per_seed",
    "pass_at_k",
    "wilson_interval",
]
