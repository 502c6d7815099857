"""Problems from JSON and JSONL files, and the data sets known by name.

A file holds objects with the problem under ``problem``, ``prompt`` or ``question`` and the answer
under ``answer``. Where the answer is null or absent, a GSM8K solution (``... #### 18``) under ``solution``
gives it.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from elastic.data.problem import Problem

PROMPT_FIELDS = ("problem", "prompt", "question")
ANSWER_FIELD = "answer"
SOLUTION_FIELD = "solution"
ID_FIELDS = ("id", "unique_id")

_GSM8K_ANSWER = re.compile(r"####\s*(\S.*?)\s*$", re.MULTILINE)


def _tiny(count: int, seed: int, split: str) -> list[Problem]:
    from elastic.tiny import problems

    return problems(count, seed, split)


# Generated sets: (count, seed, split) -> problems. Their prompts are complete; no chat template applies.
NAMED_SETS: dict[str, Callable[[int, int, str], list[Problem]]] = {"tiny": _tiny}


def load_problems(
    source: str | Path, *, count: int | None = None, seed: int = 0, split: str = "train"
) -> list[Problem]:
    """Loads a named set or a file.

    Args:
        source: a key of ``NAMED_SETS``, or a path ending in ``.json`` (one list of objects) or ``.jsonl``
            (one object a line).
        count: how many problems; of a file the first ones, None for all. A named set needs it.
        seed: of a named set's draw; files ignore it.
        split: of a named set, ``train``, ``validation`` or ``test``; files ignore it.

    Raises:
        ValueError: bad content, named by file, line or item, and field; ``count`` below 1, missing for a
            named set, or more than the file holds; a file without problems; an unknown ending.
        FileNotFoundError: neither a named set nor a file.
    """
    if count is not None and count < 1:
        raise ValueError(f"load_problems: count must be at least 1, got {count}")
    if str(source) in NAMED_SETS:
        if count is None:
            raise ValueError(f"load_problems: the generated set '{source}' needs count")
        return NAMED_SETS[str(source)](count, seed, split)
    path = check_source(source)
    problems = [
        _problem(item, where, f"{path.stem}-{index}") for index, (where, item) in enumerate(_items(path))
    ]
    if not problems:
        raise ValueError(f"{path}: holds no problem")
    if count is not None and count > len(problems):
        raise ValueError(f"load_problems: count is {count}, but {path} holds {len(problems)} problems")
    return problems[:count]


def check_source(source: str | Path) -> Path:
    """The path of a data file, after the checks that need no reading.

    Raises:
        FileNotFoundError: no such file, and no named set of that name.
        ValueError: an unknown ending.
    """
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"data '{source}' is neither a file nor one of the sets {sorted(NAMED_SETS)}")
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: data files end in .json or .jsonl, got '{path.suffix}'")
    return path


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """(place for error messages, object) of every item of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from error
    if path.suffix == ".jsonl":
        # Not splitlines(): JSON text may hold U+2028 and its like unescaped.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")
        return
    items = _parse(text, str(path))
    if not isinstance(items, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(items).__name__}")
    for index, item in enumerate(items):
        yield f"{path}, item {index}", item


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error


def _problem(item: Any, where: str, default_id: str) -> Problem:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object, got {type(item).__name__}")
    fields = [name for name in PROMPT_FIELDS if name in item]
    if len(fields) != 1:
        found = f"has {' and '.join(fields)}" if fields else f"has only the fields {sorted(item)}"
        raise ValueError(f"{where}: needs exactly one of the fields {', '.join(PROMPT_FIELDS)}, {found}")
    prompt = item[fields[0]]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}, field '{fields[0]}': expected non-empty text, got {prompt!r}")
    name = next((item[field] for field in ID_FIELDS if item.get(field) is not None), default_id)
    return Problem(prompt=prompt, answer=_answer(item, where), id=str(name))


def _answer(item: dict[str, Any], where: str) -> str:
    answer = item.get(ANSWER_FIELD)
    if answer is None:
        solution = item.get(SOLUTION_FIELD)
        matches = _GSM8K_ANSWER.findall(solution) if isinstance(solution, str) else []
        if not matches:
            raise ValueError(
                f"{where}, field '{ANSWER_FIELD}': is null or absent, and field '{SOLUTION_FIELD}' has no "
                "'#### ANSWER'"
            )
        # The answer closes a GSM8K solution.
        return matches[-1]
    if isinstance(answer, str):
        # GSM8K as published keeps the whole solution under "answer".
        matches = _GSM8K_ANSWER.findall(answer)
        answer = matches[-1] if matches else answer.strip()
    elif isinstance(answer, float) and answer.is_integer():
        answer = str(int(answer))
    elif isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = repr(answer)
    else:
        raise ValueError(f"{where}, field '{ANSWER_FIELD}': expected text or a number, got {answer!r}")
    if not answer:
        raise ValueError(f"{where}, field '{ANSWER_FIELD}': is empty")
    return answer
