"""The Python of a page under docs/, run as printed."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def run(page: str) -> dict[str, Any]:
    """Runs the blocks of a page one after the other.

    Args:
        page: file name.

    Returns:
        The names that they leave behind.
    """
    text = (DOCS / page).read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names
