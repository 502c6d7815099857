"""One row of a source as a `Problem`."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from elastic.data.answers import NoAnswer, answer_text, shown, solution_answer
from elastic.data.code_tests import CodeTest, program_test, read_tests
from elastic.data.columns import FIELDS, Columns, Row, kept
from elastic.data.filters import Filters
from elastic.data.problem import Problem

Rows = Iterable[tuple[str, Any]]  # place for error messages, object


def read_problems(
    rows: Rows,
    label: str,
    columns: Columns,
    filters: Filters,
    *,
    incomplete: bool = False,
    keep: Sequence[str] = (),
) -> Iterator[Problem]:
    """The problems in some rows; what was left out is said in one warning at the end.

    Args:
        rows: of the source, in order.
        label: what problems without an id are named after: ``label-0``, ``label-1``, by row.
        columns: see `elastic.data.columns`.
        filters: which ones to keep.
        incomplete: leave out rows without an answer and tests, which are an error otherwise.
        keep: paths of further columns for `Problem.columns`.

    Raises:
        ValueError: bad content, named by file, row and field; an id that an earlier row has.
    """
    places: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    systems = 0
    for index, (where, item) in enumerate(rows):
        row = Row(item, where, columns)
        name = _id(row) or f"{label}-{index}"
        if name in places:
            raise ValueError(f"{where}: the id '{name}' is that of {places[name]} too; ids name one problem")
        places[name] = where
        try:
            problem = _problem(row, name, label)
        except NoAnswer as error:
            if not incomplete:
                raise ValueError(str(error)) from None
            left_out["no answer"] += 1
            continue
        if objection := filters.objection(problem, row):
            left_out[objection] += 1
            continue
        systems += _has_system(row)
        yield replace(problem, columns=kept(row, keep)) if keep else problem
    _say(label, len(places), left_out, systems)


def prompt_text(row: Row) -> str:
    """The question of a row: a text, or the user's message of a chat. Starter code comes behind it.

    A system message is left out: which one a model gets is `data.system`'s to say, the same for all sets.

    Raises:
        ValueError: no such field or several, an empty text, or a chat of more than one turn.
    """
    if "prompt" not in row.columns:
        found = [name for name in FIELDS["prompt"] if name in row.item]
        if len(found) != 1:
            has = f"has {' and '.join(found)}" if found else f"has only the fields {sorted(row.item)}"
            names = ", ".join(FIELDS["prompt"])
            raise ValueError(f"{row.where}: needs exactly one of the fields {names}, {has}")
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        prompt = _said_by_user(prompt, row.place("prompt"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{row.place('prompt')}: expected non-empty text, got {shown(prompt)}")
    code = row.get("starter_code")
    if isinstance(code, str) and code.strip():
        return f"{prompt}\n\nBegin with this code:\n```python\n{code.strip()}\n```"
    return prompt


def _problem(row: Row, name: str, label: str) -> Problem:
    prompt = prompt_text(row)
    tests = _tests(row)
    answer = "" if tests or {"tests", "program"} & row.columns.keys() else _answer(row)
    if not tests and not answer:
        raise NoAnswer(f"{row.place('tests')}: holds no test")
    return Problem(prompt=prompt, answer=answer, id=name, source=label, tests=tests)


def _tests(row: Row) -> tuple[CodeTest, ...]:
    function = row.get("function")
    if "program" in row.columns:
        return (program_test(row.get("program"), row.place("program"), function),)
    found = [read_tests(value, row.place("tests"), function) for value in row.get_all("tests")]
    return tuple(test for tests in found for test in tests)


def _answer(row: Row) -> str:
    answer, place = row.get("answer"), row.place("answer")
    if answer is not None:
        return answer_text(answer, place)
    if text := solution_answer(row.get("solution")):
        return text
    raise NoAnswer(
        f"{place}: is null or absent, and {row.place('solution').removeprefix(f'{row.where}, ')} has neither "
        "'#### ANSWER' nor \\boxed{ANSWER}"
    )


def _id(row: Row) -> str:
    for path in row.paths("id"):
        name = row.get("id") if "id" in row.columns else row.item.get(path)
        if name is None or name == "":
            continue
        if isinstance(name, bool) or not isinstance(name, str | int | Decimal):
            raise ValueError(f"{row.where}, field '{path}': expected text or a number, got {shown(name)}")
        return str(name)
    return ""


def _said_by_user(chat: list[Any], place: str) -> Any:
    for message in chat:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(f"{place}: expected messages with 'role' and 'content', got {shown(message)}")
    said = [message["content"] for message in chat if message["role"] != "system"]
    if len(said) != 1 or chat[-1]["role"] != "user":
        roles = ", ".join(str(message["role"]) for message in chat)
        raise ValueError(f"{place}: expected one user message, got the roles {roles or 'of none'}")
    return said[0]


def _has_system(row: Row) -> bool:
    prompt = row.get("prompt")
    return isinstance(prompt, list) and any(message["role"] == "system" for message in prompt)


def _say(label: str, rows: int, left_out: Counter[str], systems: int) -> None:
    if left_out:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items())
        warnings.warn(
            f"data '{label}': left out {left_out.total()} of {rows} problems: {reasons}", stacklevel=2
        )
    if systems:
        warnings.warn(
            f"data '{label}': {systems} prompts have a system message, which is left out; data.system gives "
            "one to every prompt",
            stacklevel=2,
        )
