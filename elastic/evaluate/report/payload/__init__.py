"""What the report of finished runs shows, as JSON: curves, table, lengths, trainings, claims and traces."""

from elastic.evaluate.report.payload.payload import payload
from elastic.evaluate.report.payload.run import Answer, ReportRun, Training

__all__ = ["Answer", "ReportRun", "Training", "payload"]
