"""Which columns of a row hold what: names of fields, and dotted paths into nested values."""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

# What a problem is made of, and where that is looked for unless `columns` says otherwise, in this order.
FIELDS: dict[str, tuple[str, ...]] = {
    "prompt": ("problem", "prompt", "question"),
    "answer": ("answer", "reward_model.ground_truth"),
    "solution": ("solution",),
    "id": ("id", "unique_id"),
    "tests": ("tests",),
    "program": (),
    "function": ("metadata.func_name",),
    "starter_code": ("starter_code",),
    "pass_rate": ("pass_rate", "solve_rate", "llama8b_solve_rate"),
}

Columns = Mapping[str, str | tuple[str, ...]]
_MISSING = object()


def check_columns(columns: Columns) -> None:
    """Checks a mapping from what a problem is made of to where a row has it.

    Raises:
        ValueError: an unknown key, or a path that is empty or no text.
    """
    for key, paths in columns.items():
        if key not in FIELDS:
            raise ValueError(f"columns: unknown key {key!r} (known: {', '.join(FIELDS)})")
        for path in _paths(paths) if isinstance(paths, str | tuple) else (paths,):
            if not isinstance(path, str) or not path:
                raise ValueError(f"columns: '{key}' must be a column's name or dotted path, got {path!r}")


class Row:
    """One row of a source, its place in words, and where its fields are.

    Args:
        item: the row, names to values.
        where: file or set, and row, for errors.
        columns: as of `check_columns`; other fields are looked for under their usual names.

    Raises:
        ValueError: the row is no object.
    """

    def __init__(self, item: Any, where: str, columns: Columns) -> None:
        if not isinstance(item, dict):
            raise ValueError(f"{where}: expected an object, got {type(item).__name__}")
        self.item, self.where, self.columns = item, where, columns

    def place(self, field: str) -> str:
        """Row and column of a field, for errors."""
        paths = self.paths(field)
        return f"{self.where}, field '{next((p for p in paths if self.has(p)), (*paths, field)[0])}'"

    def paths(self, field: str) -> tuple[str, ...]:
        """Where a field may be."""
        return _paths(self.columns[field]) if field in self.columns else FIELDS[field]

    def has(self, path: str) -> bool:
        """Whether the row has something at a path."""
        return at(self.item, path) is not _MISSING

    def get(self, field: str) -> Any:
        """The value of a field; None where the row has none.

        Raises:
            ValueError: a column that `columns` names is not there; lists those that are.
        """
        if field not in self.columns:
            return next((at(self.item, path) for path in FIELDS[field] if self.has(path)), None)
        return self.at(self.paths(field)[0])

    def get_all(self, field: str) -> list[Any]:
        """The values of a field that may be spread over several columns; errors as of `get`."""
        if field not in self.columns:
            return [value for value in [self.get(field)] if value is not None]
        return [self.at(path) for path in self.paths(field)]

    def at(self, path: str) -> Any:
        """The value at a path; ValueError where the row has none."""
        value = at(self.item, path)
        if value is _MISSING:
            raise ValueError(f"{self.where}: has no field '{path}', it has only {sorted(self.item)}")
        return value


def at(item: Any, path: str) -> Any:
    """The value at a dotted path, or a marker of absence.

    A name with a dot in it comes before a step. Texts on the way are read as JSON, or as Python's literals:
    some sets keep nested values so.
    """
    if isinstance(item, str):
        item = literal(item)
    if not isinstance(item, dict):
        return _MISSING
    if path in item:
        return item[path]
    head, dot, rest = path.partition(".")
    return at(item[head], rest) if dot and head in item else _MISSING


def literal(text: str) -> Any:
    """A value written as JSON or as Python's literal; the text itself if it is neither. Nothing is run."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def check_kept(paths: Sequence[str], name: str = "keep") -> None:
    """Checks the columns that problems keep.

    Args:
        paths: of the columns.
        name: of the argument, for messages.

    Raises:
        ValueError: a path that is empty, or two that end in one name.
    """
    names = [kept_name(path) for path in paths]
    if not all(names):
        raise ValueError(f"{name}: must be columns' names or dotted paths, got {list(paths)}")
    for own in names:
        if names.count(own) > 1:
            same = [path for path in paths if kept_name(path) == own]
            raise ValueError(f"{name}: {' and '.join(same)} would both be called '{own}'")


def kept_name(path: str) -> str:
    """What a kept column is called: the last step of its path."""
    return path.rpartition(".")[2]


def kept(row: "Row", paths: Iterable[str]) -> dict[str, Any]:
    """Values of a row's columns by their names, numbers as Python's.

    Raises:
        ValueError: the row has no such column; lists those that it has.
    """
    return {kept_name(path): _plain(row.at(path)) for path in paths}


def _plain(value: Any) -> Any:
    """Numbers are read as decimals for the answers' sake; functions compute with floats."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def within(item: Any, limits: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether the values at some paths lie in [low, high]; numbers and texts, dates as ISO texts.

    A value that is absent, or of another type than its limits, does not.
    """
    for path, (low, high) in limits.items():
        value = at(item, path)
        kind = str if isinstance(low, str) else (int, float, Decimal)
        if not isinstance(value, kind) or not low <= value <= high:
            return False
    return True


def _paths(paths: str | Iterable[str]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
