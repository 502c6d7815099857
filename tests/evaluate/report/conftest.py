"""Rows made up by hand."""

import pytest

from elastic.evaluate import Row
from tests.evaluate.rows import made_row


def _row(method: str, thinking: int | None, total: int | None, accuracy: float, tokens: float) -> Row:
    solution = None if thinking is None else 16
    return made_row(
        method,
        accuracy,
        thinking=thinking,
        solution=solution,
        total=total,
        problems=200,
        accuracy_cut=None if thinking is None else accuracy / 2,
        tokens=tokens,
        thinking_tokens=3,
        cut=0.5,
    )


@pytest.fixture
def rows() -> list[Row]:
    """Four methods at t = 0, t = 40 and without limits."""
    return [
        _row("vanilla", None, 16, 0.06, 16.0),
        _row("vanilla", None, 56, 0.20, 50.0),
        _row("vanilla", None, None, 0.90, 90.0),
        _row("separate", 0, None, 0.08, 6.0),
        _row("separate", 40, None, 0.30, 45.0),
        _row("separate", None, None, 0.90, 90.0),
        _row("capped", 0, None, 0.08, 6.0),
        _row("capped", 40, None, 0.74, 38.0),
        _row("capped", None, None, 0.95, 36.0),
        _row("e1", 0, None, 0.25, 7.0),
        _row("e1", 40, None, 0.80, 38.0),
        _row("e1", None, None, 0.80, 40.0),
    ]
