"""What a demo keeps on disk, so that a second call after a kill goes on where the first one stopped."""

import json
from pathlib import Path
from typing import Any

from elastic.evaluate import Row
from elastic.files import write_atomic

RESULT = "demo.json"
UNFINISHED = "unfinished.json"


class DemoState:
    """The rows so far, in `unfinished.json`; the result, in `demo.json`, once there is one.

    Args:
        out: the demo's directory, created.
        settings: all that the results depend on.

    Raises:
        ValueError: `out` holds a demo with other settings, or a file that no demo wrote.
        OSError: `out` is not writable.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._settings = out, settings
        self.result = self._read(RESULT)
        earlier = self._read(UNFINISHED)
        self.resumed = earlier is not None
        self.rows = [Row(**row) for row in earlier["rows"]] if earlier else []
        if self.result is None and not self.resumed:
            self._keep()

    def add(self, row: Row) -> None:
        """Keeps a finished row."""
        self.rows.append(row)
        self._keep()

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result; its presence says that everything else is there too."""
        write_atomic(self._out / RESULT, to_json(result))
        (self._out / UNFINISHED).unlink()
        self.result = result

    def _keep(self) -> None:
        rows = [row.to_dict() for row in self.rows]
        write_atomic(self._out / UNFINISHED, to_json({"settings": self._settings, "rows": rows}))

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._out / name
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            settings = content["settings"]
            changed = [key for key, value in self._settings.items() if settings.get(key) != value]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"out: {path} was not written by this demo; choose another directory") from error
        if changed:
            raise ValueError(
                f"out: {self._out} holds a demo with another {', '.join(changed)}; choose another directory"
            )
        return content


def to_json(value: Any) -> str:
    """Indented JSON; no NaN, no infinity."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
