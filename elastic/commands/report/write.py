"""Runs from their folders to the page."""

import os
from collections.abc import Sequence
from pathlib import Path

from elastic.commands.report.folders import read_run
from elastic.data.files import write_atomic
from elastic.evaluate.report.page import render
from elastic.evaluate.report.payload import payload

MOST_PROBLEMS = 500


def write_report(
    folders: Sequence[str | os.PathLike],
    out: Path,
    *,
    title: str | None = None,
    most_problems: int = MOST_PROBLEMS,
) -> int:
    """Writes the report of some runs in one step.

    Args:
        folders: of `elastic eval`, `elastic train`, `elastic demo` or `make replicate`, in the order in which
            they are shown: the base first.
        out: of the HTML file; its folder must exist.
        title: of the page; by default the runs' names.
        most_problems: in the traces; 0 leaves them out.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: a folder that holds no such run, twice the same one, files that are damaged, or an `out`
            that is no place for a file.
        OSError: one cannot be read, or `out` not be written.
    """
    if out.is_dir():
        raise ValueError(f"out: expected a file, got {out}, which is a folder")
    if not out.parent.is_dir():
        raise ValueError(f"out: {out.parent} is no folder")
    paths = [Path(folder) for folder in folders]
    real = [path.resolve() for path in paths]
    if again := [path for path, found in zip(paths, real, strict=True) if real.count(found) > 1]:
        raise ValueError(f"RUN: {again[-1]} is there twice")
    names = [path.name for path in real]
    unique = names if len(set(names)) == len(names) else [str(path) for path in paths]
    runs = [read_run(path, name) for path, name in zip(paths, unique, strict=True)]
    shown = title or "Elastic: " + ", ".join(run.name for run in runs)
    page = render(payload(runs, title=shown, most_problems=most_problems)).encode()
    write_atomic(out, page)
    return len(page)
