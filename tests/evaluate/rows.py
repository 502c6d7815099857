"""Rows made up by hand."""

from typing import Any

from elastic.evaluate import Row


def made_row(method: str, accuracy: float, *, width: float = 0.05, **facts: Any) -> Row:
    """A row of 100 problems; its interval is `accuracy` give or take `width`."""
    made = {
        "thinking": None,
        "solution": None,
        "total": None,
        "problems": 100,
        "low": accuracy - width,
        "high": accuracy + width,
        "accuracy_cut": None,
        "tokens": 15.0,
        "thinking_tokens": 10.0,
        "solution_tokens": 4.0,
        "cut": 0.0,
        "data": "made up",
        "samples": 1,
        "ungraded": 0,
        "answered": 1.0,
        "pass_at_k": {"1": accuracy},
        "solution_tokens_cut": None,
        "solution_tokens_whole": None,
        "leakage": None,
    }
    return Row(method=method, accuracy=accuracy, **(made | facts))
