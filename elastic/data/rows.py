"""The rows of JSON, JSONL and parquet files."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from elastic.data.files import read_lines, read_text

SUFFIXES = (".json", ".jsonl", ".parquet")


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place for error messages, object) of every item of a file.

    Raises:
        ValueError: the content is not what the ending says, or is not readable; names file and line.
        ModuleNotFoundError: a parquet file without pyarrow.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".jsonl":
        for number, line in read_lines(path):
            yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")
    else:
        items = _parse(read_text(path), str(path))
        if not isinstance(items, list):
            raise ValueError(f"{path}: expected a list of objects, got {type(items).__name__}")
        for index, item in enumerate(items):
            yield f"{path}, item {index}", item


def missing_extra(package: str, what: str) -> ModuleNotFoundError:
    """The error for a package of the extra ``data`` that is not installed."""
    return ModuleNotFoundError(
        f"{what} needs the package {package}: pip install 'elastic[data]'", name=package
    )


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", f"{path}: reading parquet") from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for item in batch.to_pylist():
                    yield f"{path}, row {number}", item
                    number += 1
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: not readable as parquet: {error}") from error


def _parse(text: str, where: str) -> Any:
    try:
        # Decimals keep what is written; NaN and infinities, which are no JSON, come as floats.
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        place = f" (line {error.lineno}, column {error.colno})"
        raise ValueError(f"{where}: not JSON: {error.msg}{place}") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, brackets without end
        raise ValueError(f"{where}: cannot be read: {error}") from error
