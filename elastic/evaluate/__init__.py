"""Methods x budgets over a list of problems, with intervals."""

from elastic.evaluate.row import Row
from elastic.evaluate.statistics import Interval, wilson_interval
from elastic.evaluate.sweep import sweep

__all__ = ["Interval", "Row", "sweep", "wilson_interval"]
