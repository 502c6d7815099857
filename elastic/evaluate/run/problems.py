"""`problems.jsonl`: questions and right answers beside the samples, for those who read these."""

import json
from collections.abc import Iterable
from pathlib import Path

from elastic.data import Problem
from elastic.data.files import read_lines, write_atomic
from elastic.evaluate.run.sets import EvalSet

PROBLEMS = "problems.jsonl"


def write_problems(folder: Path, sets: Iterable[EvalSet]) -> None:
    """Writes one line per problem, as every `Sample` names it, in one step."""
    lines = [
        json.dumps(
            {"data": data.name, "problem": name, "prompt": problem.prompt, "answer": _answer(problem)},
            ensure_ascii=False,
        )
        for data in sets
        for name, problem in zip(data.ids, data.problems, strict=True)
    ]
    write_atomic(folder / PROBLEMS, "".join(f"{line}\n" for line in lines))


def read_problems(folder: Path) -> dict[tuple[str, str], Problem]:
    """The problems of a folder by (set, id); none where an older version wrote it.

    Raises:
        ValueError: a line that is no problem; names file and line.
        OSError: it cannot be read.
    """
    path = folder / PROBLEMS
    found: dict[tuple[str, str], Problem] = {}
    for number, line in read_lines(path) if path.exists() else ():
        try:
            record = json.loads(line)
            data, name = record["data"], record["problem"]
            found[data, name] = Problem(record["prompt"], record["answer"], id=name, source=data)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: no problem: {error}") from error
    return found


def _answer(problem: Problem) -> str:
    return f"graded by {len(problem.tests)} tests" if problem.tests else problem.answer
