"""`eval.json`: what the samples of a finished evaluation say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic.data.files import read_text, write_atomic
from elastic.evaluate.comparisons import comparisons
from elastic.evaluate.run.folder import RESULT
from elastic.evaluate.sample import Sample
from elastic.evaluate.summary import leakages, rows_of


def write_result(
    folder: Path,
    settings: dict[str, Any],
    samples: Sequence[Sample],
    ks: Sequence[int],
    wall_seconds: float | None,
) -> None:
    """Writes `eval.json` in one step.

    Args:
        folder: of the evaluation.
        settings: that the samples were made with.
        samples: all of them.
        ks: the k of pass@k.
        wall_seconds: of the call that made the last samples; None where none were left to make: then an
            earlier result keeps its own.
    """
    result = {
        "model": settings["model"]["name"],
        "settings": settings,
        "versions": settings["versions"],
        "rows": [row.to_dict() for row in rows_of(samples, ks)],
        "leakage": [item.to_dict() for item in leakages(samples)],
        "comparisons": _comparisons(samples),
        "wall_seconds": _earlier(folder / RESULT) if wall_seconds is None else round(wall_seconds, 1),
    }
    write_atomic(folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _earlier(path: Path) -> float | None:
    return json.loads(read_text(path)).get("wall_seconds") if path.exists() else None


def _comparisons(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Every method against those before it, on every set."""
    methods = list(dict.fromkeys(sample.method for sample in samples))
    return [
        comparison.to_dict()
        for number, method in enumerate(methods[1:], start=1)
        for comparison in comparisons(samples, method, methods[:number])
    ]
