"""Which command wrote a folder, and what the report reads of it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from elastic.commands.report.readers import demo, evaluation, replication, training
from elastic.evaluate.report.payload import ReportRun


class Kind(NamedTuple):
    """A command whose folders can be read.

    Attributes:
        command: its name.
        marks: files that its folders hold; the first is what a message names.
        read: a function from folder and name to the run.
    """

    command: str
    marks: tuple[str, ...]
    read: Callable[[Path, str], ReportRun]


# The first whose marks are all there: a demo holds trainings, not the reverse.
_KINDS = (
    Kind("elastic demo", ("demo.json",), demo),
    Kind("make replicate", ("replicate.json",), replication),
    Kind("elastic train", ("metrics.jsonl",), training),
    Kind("elastic eval", ("samples.jsonl", "settings.json"), evaluation),
)


def read_run(path: Path, name: str) -> ReportRun:
    """The run of a folder.

    Args:
        path: the folder.
        name: of the run in the report.

    Raises:
        ValueError: it is no folder, none of a known command, or its files are damaged.
        OSError: it cannot be read.
    """
    if not path.is_dir():
        raise ValueError(f"RUN: {path} is no folder")
    for kind in _KINDS:
        if all((path / mark).is_file() for mark in kind.marks):
            try:
                return kind.read(path, name)
            except KeyError as error:
                damaged = f"is damaged, or of another version of {kind.command}"
                raise ValueError(f"RUN: {path} {damaged}: it lacks {error}") from error
    known = ", ".join(f"{' and '.join(kind.marks)} ({kind.command})" for kind in _KINDS)
    raise ValueError(f"RUN: {path} holds no finished run; looked for {known}")
