"""What a command of parts keeps on disk, so that a call after a kill resumes where the first one stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

from elastic.data.files import read_text, write_atomic
from elastic.evaluate.run.settings import versions as versions  # for the settings of every such command

UNFINISHED = "unfinished"
SETTINGS = "settings.json"


class State:
    """What each part has done so far, one file per part in `unfinished/`, and the finished result.

    Several processes may work on one directory as long as no two write the same part.

    Args:
        out: the command's directory, created.
        settings: all that the results depend on.
        result: name of the finished result's file.
        name: what the command calls itself in messages.

    Raises:
        ValueError: `out` holds results with other settings, or a file that this command did not write.
        OSError: `out` is not writable.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, result: str, name: str) -> None:
        self._out, self._settings, self._file, self._name = out, settings, result, name
        self._parts = out / UNFINISHED
        out.mkdir(parents=True, exist_ok=True)
        self.result = self._read(out / result)
        if self.result is not None:
            return
        self.resumed = self._read(self._parts / SETTINGS) is not None
        if not self.resumed:
            self._parts.mkdir(exist_ok=True)
            self._write(self._parts / SETTINGS, {})

    def read(self, part: str) -> dict[str, Any] | None:
        """What was last written of a part; None for nothing."""
        return self._read(self._parts / f"{part}.json")

    def write(self, part: str, content: dict[str, Any]) -> None:
        """Keeps what a part has done so far, in place of what was kept before."""
        self._write(self._parts / f"{part}.json", content)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result; its presence says that everything else is there too."""
        self._write(self._out / self._file, result)
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
            raise ValueError(
                f"out: {path} was not written by this {self._name}; choose another directory"
            ) from error
        if changed:
            differing = ", ".join(changed)
            raise ValueError(
                f"out: {self._out} holds a {self._name} with another {differing}; choose another directory"
            )
        return content


def to_json(value: Any) -> str:
    """Indented JSON; no NaN, no infinity."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
