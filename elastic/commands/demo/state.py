"""The rows of a demo on disk."""

from pathlib import Path
from typing import Any

from elastic.commands.parts.state import State
from elastic.evaluate import Row

RESULT = "demo.json"


class DemoState(State):
    """The rows so far, by method, and the finished result in `demo.json`; see `State`."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        super().__init__(out, settings, result=RESULT, name="demo")

    def rows(self, method: str) -> list[Row]:
        """The finished rows of a method, in the order in which they were added."""
        content = self.read(method)
        return [Row(**row) for row in content["rows"]] if content else []

    def add(self, row: Row) -> None:
        """Keeps a finished row."""
        rows = [*self.rows(row.method), row]
        self.write(row.method, {"rows": [row.to_dict() for row in rows]})
