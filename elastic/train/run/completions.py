"""A few completions of a step for reading: a table as wide as the terminal."""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

_GAP = "  "
_DOTS = "..."
_CUT = " [cut] "  # between a thought that its budget ended and the solution
_ENDED = " / "  # between a thought that ended by itself and the solution
_LEAST = 12  # columns of the prompt; of the completion twice as many


def completions_table(records: Sequence[dict[str, Any]], width: int) -> str:
    """Prompt tail, thought and solution with head and tail, reward, tokens, and how each row ended.

    Args:
        records: as of `Collected.samples`, all of one step.
        width: of the terminal, in columns.
    """
    heads = ["reward", "think", "solve", "end"]
    facts = [
        [
            _reward(record["reward"]),
            str(record["thinking_tokens"]),
            str(record["solution_tokens"]),
            record["finish_reason"],
        ]
        for record in records
    ]
    widths = [max(map(len, column)) for column in zip(heads, *facts, strict=True)]
    left = width - sum(widths) - len(_GAP) * 5
    of_prompt = max(_LEAST, left // 3)
    of_completion = max(2 * _LEAST, left - of_prompt)
    lines = [_line(heads, widths, "prompt", of_prompt, "completion")]
    for fact, record in zip(facts, records, strict=True):
        prompt = _tail(_one_line(record["prompt"]), of_prompt)
        lines.append(_line(fact, widths, prompt, of_prompt, _completion(record, of_completion)))
    return "\n".join([f"completions of step {records[0]['step']}", *lines])


def _reward(value: float | None) -> str:
    return "none" if value is None or math.isnan(value) else f"{value:.3f}"


def _line(facts: Sequence[str], widths: Sequence[int], prompt: str, of_prompt: int, completion: str) -> str:
    cells = [fact.rjust(width) for fact, width in zip(facts, widths, strict=True)]
    padding = " " * (of_prompt - columns(prompt))
    return _GAP.join([*cells, prompt + padding, completion]).rstrip()


def _completion(record: dict[str, Any], width: int) -> str:
    """Thought and solution; what one does not need of its half goes to the other."""
    thinking, solution = _one_line(record["thinking"]), _one_line(record["solution"])
    mark = _CUT if record["thinking_cut"] else _ENDED
    room = width - len(mark)
    first = min(columns(thinking), max(room // 2, room - columns(solution)))
    return _middle_out(thinking, first) + mark + _middle_out(solution, room - first)


def _middle_out(text: str, width: int) -> str:
    """Head and tail of a text that is too wide."""
    if columns(text) <= width:
        return text
    tail = (width - len(_DOTS)) // 2
    return _head(text, width - len(_DOTS) - tail) + _DOTS + _tail_of(text, tail)


def _tail(text: str, width: int) -> str:
    return text if columns(text) <= width else _DOTS + _tail_of(text, width - len(_DOTS))


def _head(text: str, width: int) -> str:
    return "".join(_fitting(text, width))


def _tail_of(text: str, width: int) -> str:
    return "".join(_fitting(text[::-1], width))[::-1]


def _fitting(text: str, width: int) -> Iterator[str]:
    for character in text:
        width -= columns(character)
        if width < 0:
            return
        yield character


def columns(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _one_line(text: str) -> str:
    """White space as single blanks; control characters, which could move the cursor, in words."""
    text = re.sub(r"\s+", " ", text)
    return "".join(
        character if unicodedata.category(character) not in ("Cc", "Cs") else f"\\x{ord(character):02x}"
        for character in text
    )
