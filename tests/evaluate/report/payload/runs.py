"""Runs and answers made up by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elastic.data import Problem
from elastic.evaluate import Sample, rows_of
from elastic.evaluate.report.payload import Answer, ReportRun
from tests.evaluate.statistics.samples import answer


def told(sample: Sample, thinking: str, solution: str) -> Sample:
    """A sample with texts, and a forced marker between them."""
    return replace(sample, segments=(("thinking", thinking), ("forced", "</think>"), ("solution", solution)))


def texts(sample: Sample) -> Sample:
    """A sample with the same short texts as every other."""
    return told(sample, "we have 7 .", "answer is 7")


def answers_to(
    problems: Sequence[str], method: str, budget: tuple[int | None, int | None, int | None], **facts: Any
) -> list[Sample]:
    """One answer with texts to each problem."""
    return [texts(answer(name, method=method, budget=budget, **facts)) for name in problems]


def run_of(name: str, samples: Sequence[Sample], **fields: Any) -> ReportRun:
    """An evaluation of these samples, whose problems ask for themselves."""
    problems = {
        (sample.data, sample.problem): Problem(f"{sample.problem} ?", f"right {sample.problem}")
        for sample in samples
    }
    made = {"rows": rows_of(samples), "answers": lambda: map(Answer, samples), "problems": problems}
    return ReportRun(name, "evaluation", **(made | fields))
