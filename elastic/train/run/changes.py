"""What changed in a run's configuration when it was resumed: ``changes.jsonl`` beside its metrics."""

from collections.abc import Sequence
from pathlib import Path

from elastic.train.run.metrics import JsonLines

CHANGES_FILE = "changes.jsonl"


def note_changes(output: Path, step: int, changes: Sequence[str]) -> None:
    """Notes changes with the step from which they hold.

    Lines of later steps, which the resumed run does again, are dropped, as of the metrics; so is what an
    earlier attempt to resume from the same step noted.

    Args:
        output: the run's directory.
        step: of the checkpoint that was resumed.
        changes: ``table.key: old -> new``.
    """
    path = output / CHANGES_FILE
    if not changes and not path.exists():
        return
    # Without changes the checkpoint may be of this step's own changes: a resumed run that failed at once.
    lines = JsonLines(path, step - 1 if changes else step)
    if changes:
        lines.write({"step": step, "changes": list(changes)})
    lines.sync()
    lines.close()
