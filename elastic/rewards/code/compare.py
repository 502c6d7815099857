"""Whether what a program printed or returned is right.

Compared outside of the sandbox: a program never gets to see what is expected of it. Checkers that programming
sites keep to themselves, as those of Codeforces for tasks with several right outputs, are not known: what
a test lists is right, and nothing else.
"""

import json
import math
import re
from typing import Any

from elastic.data.code_tests import CallTest, StdinTest

TOLERANCE = 1e-6  # absolute, or relative to the expected number, as in the checkers of testlib
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d{1,4})?")
_NUMBER = re.compile(r"[-+]?(?:\d{1,4000}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")


def right_output(test: StdinTest, printed: bytes) -> bool:
    """Whether a program printed what a test accepts.

    Lines are compared in order, or in any order where the test says so. Blank lines and the amount of white
    space do not count. Where a decimal fraction is expected, any number within `TOLERANCE` is right; whole
    numbers and words have to be the same.
    """
    try:
        lines = _lines(printed.decode())
    except UnicodeDecodeError:
        return False
    return any(_same_lines(lines, _lines(right), test.any_order) for right in (test.output, *test.accepted))


def right_value(test: CallTest, returned: bytes) -> bool:
    """Whether a function returned, as JSON, what a test accepts; floats within `TOLERANCE`."""
    try:
        value = json.loads(returned)
        return any(same_value(value, json.loads(right), test.any_order) for right in test.expected)
    except (ValueError, RecursionError):
        return False


def same_value(value: Any, right: Any, any_order: bool = False) -> bool:
    """Whether two JSON values are equal; with ``any_order`` the items of a list may be in another order."""
    if isinstance(right, list) and isinstance(value, list):
        if len(value) != len(right):
            return False
        if any_order:
            value, right = sorted(value, key=_order), sorted(right, key=_order)
        return all(map(same_value, value, right))
    if isinstance(right, dict) and isinstance(value, dict):
        return value.keys() == right.keys() and all(same_value(value[key], right[key]) for key in right)
    if isinstance(right, float) and isinstance(value, int | float):
        return _close(value, right)
    return bool(value == right)


def _same_lines(lines: list[list[str]], right: list[list[str]], any_order: bool) -> bool:
    if lines == right:
        return True
    if [len(line) for line in lines] != [len(line) for line in right] and not any_order:
        return False
    if any_order:
        lines, right = (
            sorted(text, key=lambda line: [_rank(token) for token in line]) for text in (lines, right)
        )
    return len(lines) == len(right) and all(
        len(line) == len(wanted) and all(map(_same_token, line, wanted))
        for line, wanted in zip(lines, right, strict=True)
    )


def _same_token(token: str, right: str) -> bool:
    if token == right:
        return True
    if not (_FLOAT.fullmatch(right) and _NUMBER.fullmatch(token)):
        return False
    return _close(float(token), float(right))


def _close(value: float, right: float) -> bool:
    if math.isnan(right) or math.isinf(right):
        return value == right or (math.isnan(right) and value != value)
    try:
        return abs(value - right) <= TOLERANCE * max(1.0, abs(right))
    except OverflowError:  # an integer that no float holds
        return False


def _lines(text: str) -> list[list[str]]:
    return [tokens for line in text.splitlines() if (tokens := line.split())]


def _rank(token: str) -> tuple[float, str]:
    """Numbers by value, so that 0.5 and 0.50 stand at the same place; words behind them."""
    return (float(token), "") if _NUMBER.fullmatch(token) else (math.inf, token)


def _order(value: Any) -> tuple[int, Any]:
    """A place among values of any kind."""
    if isinstance(value, bool) or value is None:
        return 0, str(value)
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    if isinstance(value, list):
        return 3, [_order(item) for item in value]
    return 4, [(key, _order(item)) for key, item in sorted(value.items())]
