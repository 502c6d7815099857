"""Kinds of rows and filters that `sample_rows` measures. Pure: a report is made before anything is built."""

from typing import Any

KINDS = ("peaked 0.5", "peaked 0.99", "N(0,3)", "flat")
FILTERS: dict[str, dict[str, Any]] = {
    "": {},
    " top_p": {"top_p": 0.95},
    " top_k": {"top_k": 50},
    " top_k and top_p": {"top_k": 50, "top_p": 0.95},
}
