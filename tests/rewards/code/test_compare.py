"""What is right: outputs as texts, lines and numbers; returned values."""

import pytest

from elastic.data.code_tests import CallTest, StdinTest
from elastic.rewards.code.compare import right_output, right_value


@pytest.mark.parametrize(
    ("printed", "wanted", "right"),
    [
        ("3\n", "3", True),
        ("3", "3\n", True),
        ("1  2 \n\n3\r\n", "1 2\n3\n\n", True),
        ("1 2 3", "1 2\n3", False),  # lines count
        ("1\n2", "2\n1", False),
        ("4", "3", False),
        ("", "3", False),
        ("3 3", "3", False),
        ("YES", "Yes", False),
        ("", "", True),
        # numbers
        ("0.50", "0.5", True),
        ("0.3333333333", "0.333333", True),
        ("0.33333", "0.333334", False),
        ("1000000.5", "1000000.0", True),  # relative
        ("1000002.5", "1000000.0", False),
        ("1e-3", "0.001", True),
        ("5e-1", "0.5", True),
        ("2", "2.0", True),
        ("2.0", "2", False),  # a whole number is expected
        ("nan", "0.5", False),
        ("inf", "0.5", False),
        ("1/2", "0.5", False),
        ("0.5x", "0.5", False),
        ("1e999", "0.5", False),
        ("9" * 5000, "0.5", False),
        ("9" * 5000, "9" * 5000, True),
        ("x 0.1", "x 0.1000000001", True),
    ],
)
def test_outputs_are_compared_line_by_line_and_fractions_within_a_tolerance(
    printed: str, wanted: str, right: bool
) -> None:
    assert right_output(StdinTest("", wanted), printed.encode()) is right


def test_an_output_that_is_no_text_is_wrong() -> None:
    assert not right_output(StdinTest("", "é"), "é".encode("latin-1"))


def test_the_order_of_lines_is_free_where_the_test_says_so() -> None:
    test = StdinTest("", "b 0.5\na 1\n", any_order=True)
    assert right_output(test, b"a 1\nb 0.5000000001\n")
    assert right_output(test, b"b 0.50\na 1\n")
    assert not right_output(test, b"a 1\na 1\n")
    assert not right_output(test, b"a 1\n")
    assert not right_output(test, b"1 a\n0.5 b\n")  # within a line it is not


def test_each_of_several_outputs_is_right() -> None:
    test = StdinTest("", "1 2", accepted=("2 1",))
    assert right_output(test, b"1 2")
    assert right_output(test, b"2 1")
    assert not right_output(test, b"2 2")


@pytest.mark.parametrize(
    ("returned", "wanted", "right"),
    [
        ("[1, 2]", "[1, 2]", True),
        ("[1, 2]", "[2, 1]", False),
        ("[1]", "[1, 1]", False),
        ("0.30000000000000004", "0.3", True),
        ("0.31", "0.3", False),
        ("1", "1.0", True),
        ("1.0", "1", True),
        ("1.0000000001", "1", False),
        ("true", "true", True),
        ("false", "true", False),
        ("null", "null", True),
        ("null", "false", False),
        ('"1"', "1", False),
        ('{"a": [0.1]}', '{"a": [0.10000000001]}', True),
        ('{"a": 1}', '{"b": 1}', False),
        ("[[1], 2]", "[[1], [2]]", False),
        ("1" * 4000, "1.5", False),
        ("NaN", "NaN", True),
        ("NaN", "0.5", False),
        ("", "1", False),
        ("1 1", "1", False),
        ("[" * 100_000, "1", False),
    ],
)
def test_returned_values_are_compared_as_json(returned: str, wanted: str, right: bool) -> None:
    assert right_value(CallTest("f", "[]", (wanted,)), returned.encode()) is right


def test_the_order_of_a_list_is_free_where_the_test_says_so() -> None:
    test = CallTest("f", "[]", ('[[1, 2], [0.5], null, "a", {"k": 1}]',), any_order=True)
    assert right_value(test, b'["a", {"k": 1}, [0.5], [1, 2], null]')
    assert not right_value(test, b'["a", {"k": 1}, [0.5], [2, 1], null]')
    assert not right_value(test, b'["a", "a", [0.5], [1, 2], null]')


def test_each_of_several_values_is_right() -> None:
    test = CallTest("f", "[]", ("[3]", "3"))
    assert [right_value(test, value) for value in (b"3", b"[3]", b"[[3]]")] == [True, True, False]
