"""Finds what a solution states as its final answer."""

import re
from typing import Literal, get_args

Boxes = Literal["last", "all"]

_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>\n]*[|｜]>|</s>|<eos>")
# "the answer is ...", "Final Answer: ...", "#### ...": up to the end of the line.
_CUE = re.compile(r"(?:####|(?:final\s+)?answer\s*(?:\*\*)?\s*(?::|\bis\b:?))[ \t]*([^\n]+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.。](?=\s|$)")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{\s\d])")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_BLANK = re.compile(r"(?:\\(?:text|mathrm|mbox)\s*\{\s*\}|\\[,;:! \\]|\\q?quad|[\s~${}])*")


def final_answer(solution: str, *, boxes: Boxes = "last", answer_tags: bool = False) -> str | None:
    """What a solution states as its answer; None if it states nothing.

    A box that holds nothing, or was cut, states nothing: the one before it counts.

    Args:
        solution: text behind the end marker.
        boxes: ``last`` takes the last ``\\boxed{...}``; ``all`` makes a list of the different ones, for
            solutions that box each of several values.
        answer_tags: whether the last ``<answer>...</answer>`` that is not empty has precedence: its box, or
            else all of its text. Without such a tag the solution is read as without this option.

    Raises:
        ValueError: an unknown ``boxes``.
    """
    if boxes not in get_args(Boxes):
        raise ValueError(f"final_answer: boxes: expected 'last' or 'all', got {boxes!r}")
    solution = _SPECIAL_TOKEN.sub("", solution)
    if answer_tags:
        for tagged in reversed(_TAG.findall(solution)):
            if not _BLANK.fullmatch(tagged):
                return _boxed(tagged, boxes) or tagged.strip()
    return _boxed(solution, boxes) or _said(solution)


def _boxed(text: str, boxes: Boxes) -> str | None:
    found = []
    closing = _closing(text)
    for match in reversed(list(_BOX.finditer(text))):
        content = _content(text, match.end(), closing)
        if content is None or _BLANK.fullmatch(content):
            continue
        if boxes == "last":
            return content
        found.append(content)
    return ", ".join(dict.fromkeys(reversed(found))) or None


def _said(text: str) -> str | None:
    for cue in reversed(_CUE.findall(text)):
        line = cue.strip()
        math = re.match(r"\$+(.+?)\$+", line)
        stated = math.group(1) if math else _SENTENCE_END.split(line)[0]
        if stated.strip(" *$"):
            return stated.strip(" *$")
    return None


def _content(text: str, start: int, closing: dict[int, int]) -> str | None:
    """The balanced braces at ``start``, or the digits of ``\\boxed 5``; None if it was cut in the middle."""
    if text[start] == "{":
        return text[start + 1 : closing[start]].strip() if start in closing else None
    digits = re.match(r"\s*(\d+)", text[start:])
    return digits.group(1) if digits else None


def _closing(text: str) -> dict[int, int]:
    """Where each brace closes, in one pass: a model in a loop writes thousands of boxes that never do."""
    found, opened = {}, []
    # A pair of backslashes is a line break: what follows it is not escaped.
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            found[opened.pop()] = match.start()
    return found
