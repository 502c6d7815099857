"""Words and letter sequences in answers: text, never products of letters."""

import re

from elastic.rewards.notation import squeezed
from elastic.rewards.numerals import exact_number

# A hyphen joins words; between shorter runs of letters it is a minus sign, as in `ad-bc`.
_LETTERS = re.compile(r"[a-zA-Z]+(?:(?:[ '.]+|(?<=[a-z]{3})-(?=[a-zA-Z]{3}))[a-zA-Z]+)*[.']?")
_COMMAND = re.compile(r"\\(?!text|ldots|dots)[a-zA-Z]+ ?|(?<=[_^])(?:\{\d+\}|\d+) ?")
_TEXT = re.compile(r"[a-zA-Z]{4}|[\"']|\d_|[a-zA-Z] ?\d|\\text|\d ?: ?\d|\d \d|\\l?dots|\.\.\.|!!")
_UNREAD = re.compile(r"\^\{? ?(?:T|\\top|\\dagger|\*)|\\boxed|\\phantom")


def words(text: str) -> str | None:
    """The text of an answer that is words or a sequence of letters; None of mathematics.

    A digit behind a letter (`A1B2`), a ratio or a time (`3:45`), digits with a space between them (`3 5`) and
    digits that go on without end (`0.33\\ldots`) are text as well: as mathematics they would be products. So
    are primes, indexed numbers and transposes, which math-verify reads without prime, index and T.
    """
    if _LETTERS.fullmatch(text):
        return text.strip(" .")
    if exact_number(text) is not None:
        return None
    return text if _UNREAD.search(text) or _TEXT.search(_COMMAND.sub("§", text)) else None


def same_words(left: str, right: str) -> bool:
    """Whether two texts are equal, ignoring capital first letters, and all capitals from three letters on."""
    left, right = (re.sub(r"\\text\{ ?([^{}]*?) ?\}", r"\1", text) for text in (left, right))
    if squeezed(left) == squeezed(right):
        return True
    if len(left) < 2 or squeezed(left).lower() != squeezed(right).lower():
        return False
    # AaBb and Aabb are different: only words written in one of the three usual ways are the same in another.
    styles = {_style(left), _style(right)}
    return None not in styles and (styles == {"lower", "title"} or len(left) > 2)


def _style(text: str) -> str | None:
    tests = {
        "lower": text.islower(),
        "upper": text.isupper(),
        "title": text.istitle() or text.capitalize() == text,
    }
    return next((name for name, holds in tests.items() if holds), None)
