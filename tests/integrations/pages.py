"""The Python of a page under docs/, run as printed."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Runs the blocks of a page one after the other.

    Args:
        page: file name.

    Returns:
        The names that they leave behind.
    """
    names: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)
    return names
