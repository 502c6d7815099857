"""Problems: one record type, and where they come from."""

from elastic.data.filters import Filters
from elastic.data.loading import NAMED_SETS, NamedSet, load, load_prompts
from elastic.data.overlap import Overlap, contamination
from elastic.data.problem import Problem
from elastic.data.sets import SETS

__all__ = [
    "NAMED_SETS",
    "SETS",
    "Filters",
    "NamedSet",
    "Overlap",
    "Problem",
    "contamination",
    "load",
    "load_prompts",
]
