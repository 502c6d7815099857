"""Everything that the report of some runs shows, in one record for JSON."""

import datetime
from collections.abc import Sequence
from typing import Any

from elastic.evaluate.report.payload import series
from elastic.evaluate.report.payload.places import Places
from elastic.evaluate.report.payload.run import ReportRun
from elastic.evaluate.report.payload.texts import size_of
from elastic.evaluate.report.payload.traces import Traces, look_through
from elastic.evaluate.report.payload.training import training
from elastic.evaluate.run.settings import versions

MOST_BYTES = 2_850_000  # of the payload: with the page around it less than 3 MB


def payload(
    runs: Sequence[ReportRun], *, title: str, most_problems: int = 500, most_bytes: int = MOST_BYTES
) -> dict[str, Any]:
    """The record; docs/report.md says what each part is.

    Args:
        runs: with unique names. Those that answered the same problems are seen side by side in the traces.
        title: of the page.
        most_problems: in the traces; 0 leaves them out.
        most_bytes: of the whole record in the page. Texts give way first, then budgets and problems of the
            traces; `notes` says what was left out.

    Raises:
        ValueError: no runs, equal names, or ``most_problems`` below 0.
    """
    if not runs:
        raise ValueError("report: runs must not be empty")
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"report: runs must have unique names, got {', '.join(run.name for run in runs)}")
    if most_problems < 0:
        raise ValueError(f"most_problems: must be at least 0, got {most_problems}")
    looked = {run.name: look_through(run) for run in runs}
    evaluated = {
        name: [answer.sample for answer in answers if answer.step is None]
        for name, (answers, _) in looked.items()
    }
    places = Places(sample.budget for samples in evaluated.values() for sample in samples)
    traces = Traces(runs, {name: seen for name, (_, seen) in looked.items()}, places)
    record: dict[str, Any] = {
        "title": title,
        "made": versions() | {"date": datetime.date.today().isoformat()},
        "notes": [note for run in runs for note in run.notes],
        "runs": [{"name": run.name, "kind": run.kind, "facts": dict(run.facts)} for run in runs],
        "curves": series.curves(runs),
        "table": series.table(runs),
        "training": training(runs),
        "lengths": [line for run in runs for line in series.lengths(run, evaluated[run.name])],
        "claims": [dict(claim) for run in runs for claim in run.claims],
        "reasoning": traces.reasoning(),
    }
    shown, notes = traces.shown(most_problems, most_bytes - size_of(record))
    record["notes"] += notes
    return record | {"traces": shown}
