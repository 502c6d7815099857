"""Problems: one record type, and where they come from."""

from elastic.data.loading import NAMED_SETS, NamedSet, load, load_prompts
from elastic.data.problem import Problem

__all__ = ["NAMED_SETS", "NamedSet", "Problem", "load", "load_prompts"]
