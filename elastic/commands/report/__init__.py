"""`elastic report`: finished runs as one HTML file."""

from elastic.commands.report.write import MOST_PROBLEMS, write_report

__all__ = ["MOST_PROBLEMS", "write_report"]
