"""Problems from JSON and JSONL files, and the data sets known by name.

A file holds objects with the problem under ``problem``, ``prompt`` or ``question`` and the answer
under ``answer``. Where the answer is null or absent, a GSM8K solution (``... #### 18``) under ``solution``
gives it. Numbers become plain decimals, as they stand in the file: 1e-05 is ``0.00001``, 142.0 is ``142``.
"""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from elastic.data import sums
from elastic.data.files import read_lines, read_text
from elastic.data.problem import Problem

PROMPT_FIELDS = ("problem", "prompt", "question")
ANSWER_FIELD = "answer"
SOLUTION_FIELD = "solution"
ID_FIELDS = ("id", "unique_id")

_MAX_DIGITS = 1000
_GSM8K_ANSWER = re.compile(r"####\s*(\S.*?)\s*$", re.MULTILINE)


class NamedSet(NamedTuple):
    """A generated set. Its prompts are complete; no chat template applies.

    Attributes:
        problems: (count, seed, split) to problems.
        ask: (prompt, kind, N) to the prompt that asks for N tokens; kinds are ``l1-exact`` and ``l1-max``.
    """

    problems: Callable[[int, int, str], list[Problem]]
    ask: Callable[[str, str, int], str]


NAMED_SETS = {"tiny": NamedSet(sums.problems, sums.ask)}


def load(
    source: str | Path, *, count: int | None = None, seed: int = 0, split: str = "train"
) -> list[Problem]:
    """Loads a named set or a file.

    Args:
        source: a key of ``NAMED_SETS``, or a path ending in ``.json`` (one list of objects) or ``.jsonl``
            (one object per line).
        count: how many problems; of a file the first ones, None for all. A named set needs it.
        seed: of a named set's draw; files ignore it.
        split: of a named set, ``train``, ``validation`` or ``test``; files ignore it.

    Raises:
        ValueError: bad content, named by file, line or item, and field: for example several answers, an
            answer that is no finite number, or an id that an earlier problem has; ``count`` below 1, missing
            for a named set, or more than the file holds; a file without problems; an unknown ending.
        FileNotFoundError: neither a named set nor a file.
    """
    if count is not None and count < 1:
        raise ValueError(f"load: count must be at least 1, got {count}")
    if str(source) in NAMED_SETS:
        if count is None:
            raise ValueError(f"load: the generated set '{source}' needs count")
        return NAMED_SETS[str(source)].problems(count, seed, split)
    path = check_source(source)
    places: dict[str, str] = {}
    problems = []
    for index, (where, item) in enumerate(_items(path)):
        prompt = _prompt(item, where)
        name = _id(item, where) or f"{path.stem}-{index}"
        if name in places:
            raise ValueError(f"{where}: the id '{name}' is that of {places[name]} too; ids name one problem")
        places[name] = where
        problems.append(Problem(prompt=prompt, answer=_answer(item, where), id=name))
    if not problems:
        raise ValueError(f"{path}: holds no problem")
    if count is not None and count > len(problems):
        raise ValueError(f"load: count is {count}, but {path} holds {len(problems)} problems")
    return problems[:count]


def load_prompts(path: str | Path) -> list[str]:
    """The prompts of a ``.json`` or ``.jsonl`` file; whatever else its objects hold is not looked at.

    Raises:
        ValueError: as of `load`.
        FileNotFoundError: no such file.
    """
    prompts = [_prompt(item, where) for where, item in _items(check_source(path))]
    if not prompts:
        raise ValueError(f"{path}: holds no problem")
    return prompts


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
    if path.suffix == ".jsonl":
        for number, line in read_lines(path):
            yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")
        return
    items = _parse(read_text(path), str(path))
    if not isinstance(items, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(items).__name__}")
    for index, item in enumerate(items):
        yield f"{path}, item {index}", item


def _parse(text: str, where: str) -> Any:
    try:
        # Decimals keep what is written; NaN and infinities, which are no JSON, come as floats.
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        place = f" (line {error.lineno}, column {error.colno})"
        raise ValueError(f"{where}: not JSON: {error.msg}{place}") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, brackets without end
        raise ValueError(f"{where}: cannot be read: {error}") from error


def _prompt(item: Any, where: str) -> str:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object, got {type(item).__name__}")
    fields = [name for name in PROMPT_FIELDS if name in item]
    if len(fields) != 1:
        found = f"has {' and '.join(fields)}" if fields else f"has only the fields {sorted(item)}"
        raise ValueError(f"{where}: needs exactly one of the fields {', '.join(PROMPT_FIELDS)}, {found}")
    prompt = item[fields[0]]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}, field '{fields[0]}': expected non-empty text, got {_shown(prompt)}")
    return prompt


def _id(item: dict[str, Any], where: str) -> str:
    for field in ID_FIELDS:
        name = item.get(field)
        if name is None or name == "":
            continue
        if isinstance(name, bool) or not isinstance(name, str | int | Decimal):
            raise ValueError(f"{where}, field '{field}': expected text or a number, got {_shown(name)}")
        return str(name)
    return ""


def _answer(item: dict[str, Any], where: str) -> str:
    answer = item.get(ANSWER_FIELD)
    place = f"{where}, field '{ANSWER_FIELD}'"
    if answer is None:
        solution = item.get(SOLUTION_FIELD)
        matches = _GSM8K_ANSWER.findall(solution) if isinstance(solution, str) else []
        if not matches:
            raise ValueError(f"{place}: is null or absent, and field '{SOLUTION_FIELD}' has no '#### ANSWER'")
        # The answer closes a GSM8K solution.
        return matches[-1]
    if isinstance(answer, list):
        if len(answer) != 1:
            raise ValueError(
                f"{place}: expected one answer, got a list of {len(answer)}: write '1, 2' where all of them "
                "together are the answer, and one of them where each is right"
            )
        answer = answer[0]
    if isinstance(answer, str):
        # GSM8K as published keeps the whole solution under "answer".
        matches = _GSM8K_ANSWER.findall(answer)
        text = matches[-1] if matches else answer.strip()
    else:
        text = _numeral(answer, place)
    if not text:
        raise ValueError(f"{place}: is empty")
    return text


def _numeral(number: Any, place: str) -> str:
    """A number as a plain decimal."""
    if isinstance(number, float) or (isinstance(number, Decimal) and abs(number.adjusted()) > _MAX_DIGITS):
        raise ValueError(f"{place}: expected a finite number, got {_shown(number)}")
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError(f"{place}: expected text or a number, got {_shown(number)}")
    text = f"{number:f}" if isinstance(number, Decimal) and number else str(int(number))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(value: Any) -> str:
    """A value as an error shows it: numbers as they stand in the file, long values shortened."""
    text = re.sub(r"Decimal\('([^']*)'\)", r"\1", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
