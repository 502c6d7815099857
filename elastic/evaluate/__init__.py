"""Methods x budgets over a list of problems, and what may be concluded from it."""

from elastic.evaluate.row import Row
from elastic.evaluate.statistics import Interval, wilson_interval
from elastic.evaluate.sweep import sweep
from elastic.evaluate.verdict import Comparison, Verdict, verdict

__all__ = ["Comparison", "Interval", "Row", "Verdict", "sweep", "verdict", "wilson_interval"]
