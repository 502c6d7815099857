"""What a demo keeps on disk, so that a call after a kill resumes where the first one stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

from elastic.data.files import read_text, write_atomic
from elastic.evaluate import Row

RESULT = "demo.json"
UNFINISHED = "unfinished"
SETTINGS = "settings.json"


class DemoState:
    """The rows so far, one file per method in `unfinished/`, and the finished result in `demo.json`.

    Several processes may work on one directory as long as no two add rows of the same method.

    Args:
        out: the demo's directory, created.
        settings: all that the results depend on.

    Raises:
        ValueError: `out` holds a demo with other settings, or a file that no demo wrote.
        OSError: `out` is not writable.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self._out, self._settings = out, settings
        self._parts = out / UNFINISHED
        out.mkdir(parents=True, exist_ok=True)
        self.result = self._read(out / RESULT)
        if self.result is not None:
            return
        self.resumed = self._read(self._parts / SETTINGS) is not None
        if not self.resumed:
            self._parts.mkdir(exist_ok=True)
            self._write(self._parts / SETTINGS, {})

    def rows(self, method: str) -> list[Row]:
        """The finished rows of a method, in the order in which they were added."""
        content = self._read(self._parts / f"{method}.json")
        return [Row(**row) for row in content["rows"]] if content else []

    def add(self, row: Row) -> None:
        """Keeps a finished row."""
        rows = [*self.rows(row.method), row]
        self._write(self._parts / f"{row.method}.json", {"rows": [row.to_dict() for row in rows]})

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result; its presence says that everything else is there too."""
        self._write(self._out / RESULT, result)
        shutil.rmtree(self._parts)
        self.result = result

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        write_atomic(path, to_json(content | {"settings": self._settings}))

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            content = json.loads(read_text(path))
            settings = content["settings"]
            changed = [key for key, value in self._settings.items() if settings.get(key) != value]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"out: {path} was not written by this demo; choose another directory") from error
        if changed:
            raise ValueError(
                f"out: {self._out} holds a demo with another {', '.join(changed)}; choose another directory"
            )
        return content


def to_json(value: Any) -> str:
    """Indented JSON; no NaN, no infinity."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
