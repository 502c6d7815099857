"""Is the final answer of a solution the right one?

Equal text and equal numbers are settled here. Everything else (``\\frac12`` against ``0.5``, sets,
intervals, expressions) goes to the library math-verify where it is installed (``elastic[train]``,
``elastic[eval]``); without it such pairs count as different, and a warning says so once.
"""

import logging
import re
import threading
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec

from elastic.rewards.response import END_MARKER, solution_text

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5
_MAX_NUMBER_LENGTH = 1000  # characters; Python refuses to read integers of more than 4300 digits

_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>\n]*[|｜]>|</s>|<eos>")
# "the answer is ...", "Final Answer: ...", "#### ...": up to the end of the line.
_CUE = re.compile(r"(?:####|(?:final\s+)?answer\s*(?:\*\*)?\s*(?::|\bis\b:?))[ \t]*([^\n]+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.。](?=\s|$)")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{\s\d])")

_SPACES = re.compile(r"\\[,;:! ]|~|\\quad|\\qquad|\s+")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$")
_PLAIN_NUMBER = re.compile(r"^-?(?:\d+(?:\.\d*)?|\.\d+)(?:/\d+)?$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def math_reward(response: str, answer: str, *, end_marker: str | None = END_MARKER) -> float:
    """1.0 if the solution's final answer equals ``answer``, otherwise 0.0.

    Only text behind the first end marker counts, whatever the solution repeats; a response that never
    closes its thinking gets 0.0. The final answer is the last ``\\boxed{...}``; without one, what follows the
    last "answer is", "Final Answer:" or "####". A number somewhere in a solution that was cut is no answer.

    Args:
        response: decoded text of a completion, without the prompt.
        answer: the reference answer, LaTeX or a number.
        end_marker: None grades the whole response.
    """
    solution = solution_text(response, end_marker)
    if solution is None:
        return 0.0
    stated = final_answer(solution)
    return 1.0 if stated is not None and equal_answers(stated, answer) else 0.0


def final_answer(solution: str) -> str | None:
    """What a solution states as its answer; None if it states nothing."""
    solution = _SPECIAL_TOKEN.sub("", solution)
    for match in reversed(list(_BOX.finditer(solution))):
        content = _box_content(solution[match.end() :])
        if content is not None:
            return content or None
    cues = _CUE.findall(solution)
    if not cues:
        return None
    line = cues[-1].strip()
    math = re.match(r"\$+(.+?)\$+", line)
    stated = math.group(1) if math else _SENTENCE_END.split(line)[0]
    return stated.strip(" *$") or None


def _box_content(rest: str) -> str | None:
    """The balanced braces at the start of ``rest``, or the single digit run of ``\\boxed 5``."""
    if not rest.startswith("{"):
        digits = re.match(r"\s*(\d+)", rest)
        return digits.group(1) if digits else None
    depth = 0
    for index, char in enumerate(rest):
        if char in "{}" and (index == 0 or rest[index - 1] != "\\"):
            depth += 1 if char == "{" else -1
            if depth == 0:
                return rest[1:index].strip()
    return None  # cut in the middle of the box


def equal_answers(stated: str, answer: str) -> bool:
    """Whether two answers are the same text, the same number, or the same to math-verify."""
    left, right = _normal(stated), _normal(answer)
    if left == right:
        return bool(left)
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _same_to_math_verify(stated, answer)


def _normal(answer: str) -> str:
    text = _TEXT.sub(r"\1", answer.strip().strip("$"))
    text = (
        text.replace("\\left", "")
        .replace("\\right", "")
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
    )
    text = (
        text.replace("\\%", "")
        .replace("%", "")
        .replace("\\$", "")
        .replace("^\\circ", "")
        .replace("^{\\circ}", "")
    )
    text = _THOUSANDS.sub("", text.replace("{,}", ","))
    return _SPACES.sub("", text).rstrip(".")


def _number(text: str) -> Fraction | None:
    if len(text) > _MAX_NUMBER_LENGTH:
        return None
    if re.fullmatch(r"\([^(),]*\)", text):  # "(051)" is a number, "(1,2)" is not
        text = text[1:-1]
    fraction = _FRACTION.match(text)
    if fraction:
        text = f"{fraction[1]}{fraction[2]}/{fraction[3]}"
    if not _PLAIN_NUMBER.match(text):
        return None
    whole, _, below = text.partition("/")
    if below:
        return Fraction(whole) / int(below) if int(below) else None
    return Fraction(whole)


@lru_cache(maxsize=1)
def _math_verify_installed() -> bool:
    if find_spec("math_verify") is not None:
        return True
    _log.warning(
        "math-verify is not installed (pip install 'elastic[train]'): answers are compared as text and as "
        "numbers only, so equal expressions written differently count as wrong"
    )
    return False


@lru_cache(maxsize=65536)
def _same_to_math_verify(stated: str, answer: str) -> bool:
    if not _math_verify_installed():
        return False
    from math_verify import parse, verify

    # Its time limit is a signal, which only the main thread may set.
    timeout = _TIMEOUT_SECONDS if threading.current_thread() is threading.main_thread() else None
    gold, target = (parse(f"\\boxed{{{text}}}", parsing_timeout=timeout) for text in (answer, stated))
    return bool(gold and target and verify(gold, target, timeout_seconds=timeout))
