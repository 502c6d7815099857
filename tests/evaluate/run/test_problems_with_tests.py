"""Problems of programming are not graded by a reward that compares answers."""

import pytest

from elastic.data import Problem
from elastic.data.code_tests import StdinTest
from elastic.evaluate.run.open_set import eval_set


def test_problems_that_are_graded_by_tests_are_refused() -> None:
    problems = [Problem("1?", "1", "a"), Problem("2?", "", "b", tests=(StdinTest("", ""),))]
    with pytest.raises(ValueError, match="problems of 'humaneval-plus' are graded by tests"):
        eval_set("humaneval-plus", problems, tokenizer=None)
