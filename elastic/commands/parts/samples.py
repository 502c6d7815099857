"""Samples of a command's parts, a file for each."""

import json
from collections.abc import Iterable
from pathlib import Path

from elastic.data.files import write_atomic
from elastic.evaluate import Sample, read_samples


def samples_path(out: Path, part: str) -> Path:
    """Where a part's samples are kept."""
    return out / "samples" / f"{part}.jsonl"


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Writes them, one a line, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(sample.to_dict()) + "\n" for sample in samples))


def keep_samples(path: Path, samples: list[Sample]) -> None:
    """Adds them; those of the same budgets that a killed call left give way."""
    budgets = {sample.budget for sample in samples}
    before = read_samples(path) if path.exists() else []
    write_samples(path, [*(sample for sample in before if sample.budget not in budgets), *samples])
