"""What a reward compares with."""

from elastic.data import Problem
from elastic.data.code_tests import StdinTest


def test_the_reference_is_the_tests_where_there_are_some_and_else_the_answer() -> None:
    tests = (StdinTest("1", "2"),)
    assert Problem("p", "4").reference == "4"
    assert Problem("p", "", tests=tests).reference == tests
