"""What the report of finished runs shows, as JSON: curves, table, lengths, trainings, claims and traces."""

from elastic.evaluate.report.payload.payload import payload
from elastic.evaluate.report.payload.run import ReportRun, Training

__all__ = ["ReportRun", "Training", "payload"]
