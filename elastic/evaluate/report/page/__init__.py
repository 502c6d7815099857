"""The report as one HTML file that needs nothing else."""

from elastic.evaluate.report.page.page import render

__all__ = ["render"]
