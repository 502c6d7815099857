"""Answers as data sets publish them, as one text: numbers, lists of one, GSM8K and MATH solutions."""

import json
import re
from decimal import Decimal
from typing import Any

_MAX_DIGITS = 1000
_GSM8K_ANSWER = re.compile(r"####\s*(\S.*?)\s*$", re.MULTILINE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


class NoAnswer(ValueError):
    """A row without an answer or tests: sets that are known to have such rows leave them out."""


def answer_text(answer: Any, place: str) -> str:
    """The text of an ``answer`` field.

    Args:
        answer: text, a number, or a list of one of these, also as JSON text ('["7"]'). A text that holds
            ``#### X`` is a GSM8K solution, whose answer is X. Numbers become plain decimals, as they stand in
            the file: 1e-05 is ``0.00001``, 142.0 is ``142``.
        place: file, row and field, for errors.

    Raises:
        NoAnswer: it is empty.
        ValueError: several answers, or something that is no answer.
    """
    if isinstance(answer, str) and re.match(r'\s*\["', answer):
        answer = _texts(answer)
    if isinstance(answer, list):
        if len(answer) != 1:
            raise ValueError(
                f"{place}: expected one answer, got a list of {len(answer)}: write '1, 2' where all of them "
                "together are the answer, and one of them where each is right"
            )
        answer = answer[0]
    if not isinstance(answer, str):
        return _numeral(answer, place)
    matches = _GSM8K_ANSWER.findall(answer)
    text = matches[-1] if matches else answer.strip()
    if not text:
        raise NoAnswer(f"{place}: is empty")
    return text


def solution_answer(solution: Any) -> str:
    """What a solution ends in: its last ``#### X`` (GSM8K) or else its last ``\\boxed{X}`` (MATH).

    Empty where it has neither, or is no text.
    """
    if not isinstance(solution, str):
        return ""
    matches = _GSM8K_ANSWER.findall(solution)
    return matches[-1] if matches else _last_box(solution)


def shown(value: Any) -> str:
    """A value as an error shows it: numbers as they stand in the file, long values shortened."""
    text = re.sub(r"Decimal\('([^']*)'\)", r"\1", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _texts(text: str) -> Any:
    """A JSON list of texts; the text itself if it is none, as the set ``["a", 1)`` is not."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return values if all(isinstance(value, str) for value in values) else text


def _last_box(text: str) -> str:
    for match in reversed(list(_BOX.finditer(text))):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if depth == 0:
                return text[match.end() : end].strip()
    return ""


def _numeral(number: Any, place: str) -> str:
    """A number as a plain decimal."""
    if isinstance(number, float):
        number = Decimal(repr(number))
    if isinstance(number, Decimal) and (not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS):
        raise ValueError(f"{place}: expected a finite number, got {shown(number)}")
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError(f"{place}: expected text or a number, got {shown(number)}")
    text = f"{number:f}" if isinstance(number, Decimal) and number else str(int(number))
    return text.rstrip("0").rstrip(".") if "." in text else text
