"""Problems: one record type, and where they come from."""

from elastic.data.loading import NAMED_SETS, load_problems, load_prompts
from elastic.data.problem import Problem

__all__ = ["NAMED_SETS", "Problem", "load_problems", "load_prompts"]
