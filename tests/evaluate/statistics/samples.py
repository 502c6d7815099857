"""Graded answers made up by hand."""

from collections.abc import Sequence

from elastic.evaluate.sample import Sample


def answer(
    problem: str = "p",
    correct: float | None = 1.0,
    *,
    method: str = "e1",
    budget: tuple[int | None, int | None, int | None] = (8, 8, None),
    number: int = 0,
    data: str = "set",
    tokens: int = 10,
    thinking: int = 4,
    solution: int = 5,
    cut: bool = False,
    answered: bool = True,
) -> Sample:
    return Sample(
        data=data,
        method=method,
        thinking=budget[0],
        solution=budget[1],
        total=budget[2],
        problem=problem,
        sample=number,
        correct=correct,
        tokens=tokens,
        thinking_tokens=thinking,
        solution_tokens=solution,
        cut=cut,
        answered=answered,
        finish_reason="stop",
    )


def answers(grades: Sequence[Sequence[float | None]], **facts) -> list[Sample]:
    """One list of grades a problem; problems are called p0, p1, ..."""
    return [
        answer(f"p{index}", grade, number=number, **facts)
        for index, found in enumerate(grades)
        for number, grade in enumerate(found)
    ]
