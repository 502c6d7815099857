"""What kind of thing an answer is: a tuple, a set, an interval, a list, an equation, or a single value.

Math libraries guess how to read `(1,234)`, `x<3` or `CBA`. The kinds are told apart here, by the text alone,
and only the single values in them are compared as mathematics.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from elastic.rewards.notation import closing, squeezed
from elastic.rewards.numerals import exact_number

_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_MEMBER = re.compile(r"([a-zA-Z]|\\[a-z]+) ?\\in(?![a-zA-Z]) ?(?=.)")
_ONE_NAME = (
    r"(?:(?:m ?)?\\angle ?|\\triangle ?)?"
    r"(?:\\text\{[^{}]*\}|\\(?:vec|overline|hat|bar)\{\w+\}|\\(?!pi|infty|frac|sqrt)[a-zA-Z]+|"
    r"[a-zA-Z]+(?: [a-zA-Z]+)*|\|[A-Z]+\|)"
    r"(?:_(?:\w|\{[^{}]*\}))?'*(?:\^\{-1\}(?= ?\())?(?: ?\(\w+(?: ?, ?\w+)*\)| [a-z])?"
)
# What may stand before an equals sign: a name, a point (`(x,y) = (1,2)`), a probability or a function value.
_NAME = re.compile(rf"{_ONE_NAME}|\({_ONE_NAME}(?: ?, ?{_ONE_NAME})+\)|(?:P|Pr|\\Pr|E|f|g|h) ?\([^()]*\)")
_VARIABLE = re.compile(r"(?:[a-zA-Z]|\\(?!pi|infty)[a-zA-Z]+)(?:_(?:\w|\{[^{}]*\}))?")
_JOIN = re.compile(r",? (or|and) |,? ?\\text\{ ?(or|and) ?\} ?")
_RELATION = re.compile(r"\\(le|ge|ne|approx|equiv|sim)(?![a-zA-Z]) ?|[<>=]")
_FLIP = {"<": ">", ">": "<", "le": "ge", "ge": "le"}
_MATRIX = re.compile(
    r"[(\[]? ?\\begin\{([pb]?matrix|array)\}(?:\{[^{}]*\})?((?:(?!\\begin).)*)\\end\{\1\} ?[)\]]?"
)


@dataclass(frozen=True)
class Shape:
    """One answer, or a part of one.

    Attributes:
        kind: ``value``, ``list`` (no brackets), ``group`` (a tuple, a set or an interval, by its brackets),
            ``union``, ``matrix``, ``assignment`` (of a value, a list, an interval to a name), ``relation``
            (other equations and inequalities).
        text: the text of a value or relation; the two brackets of a group; the name in an assignment; "or" or
            "and" where such a word joins a list or union.
        parts: the answers inside; for a relation such as `m + n = 25`, the number.
    """

    kind: str
    text: str = ""
    parts: tuple["Shape", ...] = ()


def shape_of(text: str) -> Shape:
    """The kind of an answer in `one_notation`."""
    return _shape(_without_thousands(text))


def _shape(text: str) -> Shape:
    text = _unwrapped(text.strip())
    if member := _MEMBER.match(text):
        inside = _shape(text[member.end() :])
        return Shape("assignment", member[1], (inside,)) if inside.kind in ("group", "union") else inside
    for read in (_matrix, _joined, _union, _listed, _related, _grouped, _plus_minus):
        if (found := read(text)) is not None:
            return found
    return Shape("value", text)


def _without_thousands(text: str) -> str:
    """Removes commas of thousands. Inside brackets (LaTeX's braces are none) every comma separates values."""
    found = [match.span() for match in _THOUSANDS.finditer(text)]
    inside = depths(re.sub(r"(?<!\\)[{}]", " ", text))
    for start, end in reversed(found):
        if inside[start] == 0:
            text = text[:start] + text[start:end].replace(",", "") + text[end:]
    return text


def depths(text: str) -> list[int]:
    """How many brackets of any kind are open at each character; a half-open interval has two kinds."""
    found, depth = [], 0
    for char in text:
        depth -= char in ")]}"
        found.append(depth)
        depth += char in "([{"
    return found


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts between separators outside all brackets, and those separators."""
    inside = depths(text)
    parts, found, last = [], [], 0
    for match in separator.finditer(text):
        if inside[match.start()] == 0:
            parts.append(text[last : match.start()].strip())
            found.append(match[0])
            last = match.end()
    return [*parts, text[last:].strip()], found


def _unwrapped(text: str) -> str:
    """`(051)`, `(C)` and `{x+1}` without their brackets; `(1,2)` and `\\{5\\}` keep them."""
    while text[:1] in ("(", "{") and text[-1:] == {"(": ")", "{": "}"}[text[0]]:
        if closing(text, 0) != len(text) - 1 or len(_split(text[1:-1], re.compile("[,;]"))[0]) > 1:
            break
        text = text[1:-1].strip()
    # `\text{Evelyn}`, and references that keep their box.
    command = re.match(r"\\(?:text|boxed|fbox)(?=\{)", text)
    if command and closing(text, command.end()) == len(text) - 1:
        return _unwrapped(text[command.end() + 1 : -1].strip())
    return text


def _joined(text: str) -> Shape | None:
    """`x<1 or x>3`, `1, 2, and 3`."""
    texts, joints = _split(text, _JOIN)
    if len(texts) < 2 or not all(texts):
        return None
    parts = tuple(_shape(part) for part in texts)
    names = {part.text for part in parts if part.kind == "assignment"}
    bare = tuple(part.parts[0] if part.kind == "assignment" else part for part in parts)
    if (
        len(names) > 1
        or any(part.kind != "group" for part in bare)
        or not all("or" in joint for joint in joints)
    ):
        return Shape("list", "or" if all("or" in joint for joint in joints) else "and", flat(parts))
    union = Shape("union", "or", bare)
    return Shape("assignment", names.pop(), (union,)) if names else union


def _union(text: str) -> Shape | None:
    texts, _ = _split(text, re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]]) ?U ?(?=[(\[])"))
    return (
        Shape("union", "", tuple(_shape(part) for part in texts)) if len(texts) > 1 and all(texts) else None
    )


def _listed(text: str) -> Shape | None:
    texts, _ = _split(text, re.compile("[,;]"))
    if len(texts) < 2 or not all(texts):
        return None
    return Shape("list", "", flat(map(_shape, texts)))


def flat(parts: Iterable[Shape]) -> tuple[Shape, ...]:
    """The parts, with each list replaced by its own parts."""
    return tuple(inner for part in parts for inner in (part.parts if part.kind == "list" else (part,)))


def _related(text: str) -> Shape | None:
    sides, signs = _split(text, _RELATION)
    signs = [sign.strip("\\ ") for sign in signs]
    if not signs or not all(sides):
        return None
    if "approx" in signs:
        # The side before the sign is the exact one, unless it is only the name of what is asked.
        at = signs.index("approx")
        exact = "=".join(sides[: at + 1]) if set(signs[:at]) <= {"="} else ""
        return _shape(sides[-1] if _NAME.fullmatch(exact) else exact) if exact else Shape("relation", text)
    if set(signs) == {"="}:
        return _equation(text, sides)
    return _interval(sides, signs) or Shape("relation", text)


def _equation(text: str, sides: list[str]) -> Shape:
    if _NAME.fullmatch(sides[0]):
        return Shape("assignment", squeezed(sides[0]), (_shape(sides[-1]),))
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not re.search("[a-zA-Z]", sides[0]):
        return Shape("assignment", squeezed(sides[1]), (_shape(sides[0]),))
    variables = [set(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]|(?<=\d)[a-zA-Z]", side)) for side in sides]
    if not any(variables):
        return _shape(sides[-1])  # a calculation and its result
    # `m + n = 25` says what m + n is; with 0 it is the equation of a line or a plane.
    value = None if any(variables[1:]) or len(variables[0]) < 2 else exact_number(sides[-1])
    return Shape("relation", text, (_shape(sides[-1]),) if value else ())


def _interval(sides: list[str], signs: list[str]) -> Shape | None:
    if (
        len(signs) == 1
        and _VARIABLE.fullmatch(sides[1])
        and not _VARIABLE.fullmatch(sides[0])
        and signs[0] in _FLIP
    ):
        sides, signs = sides[::-1], [_FLIP[signs[0]]]
    if len(signs) == 1 and _VARIABLE.fullmatch(sides[0]) and signs[0] in _FLIP:
        if signs[0] in ("<", "le"):
            sides, signs = ["-\\infty", *sides], ["<", *signs]
        else:
            sides, signs = [sides[1], sides[0], "\\infty"], [_FLIP[signs[0]], "<"]
    if len(signs) == 2 and _VARIABLE.fullmatch(sides[1]):
        if set(signs) <= {">", "ge"}:
            sides, signs = sides[::-1], [_FLIP[sign] for sign in reversed(signs)]
        if set(signs) <= {"<", "le"}:
            brackets = ("[" if signs[0] == "le" else "(") + ("]" if signs[1] == "le" else ")")
            interval = Shape("group", brackets, (_shape(sides[0]), _shape(sides[2])))
            return Shape("assignment", squeezed(sides[1]), (interval,))
    return None


def _grouped(text: str) -> Shape | None:
    opening = re.match(r"\\\{|\\langle |[(\[]", text)
    ending = re.search(r"(\\\}|\\rangle ?|[)\]])$", text)
    if not opening or not ending or len(text) < opening.end() + len(ending[0]):
        return None
    if "langle" not in opening[0] and closing(text, opening.end() - 1) != len(text) - 1:
        return None
    inner = text[opening.end() : ending.start()]
    texts, _ = _split(inner, re.compile("[,;]"))
    brackets = opening[0].strip("\\ ") + ending[0].strip("\\ ")
    if not all(texts) or (len(texts) < 2 and brackets not in ("{}", "[]")):
        return None
    return Shape("group", brackets, flat(map(_shape, texts)))


def _matrix(text: str) -> Shape | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row.split("&") for row in match[2].split("\\\\") if row.strip()]
    return Shape("matrix", "", tuple(Shape("row", "", tuple(_shape(cell) for cell in row)) for row in rows))


def _plus_minus(text: str) -> Shape | None:
    if len(re.findall(r"\\(?:pm|mp)(?![a-zA-Z])", text)) != 1:
        return None
    both = tuple(_shape(re.sub(r"\\(?:pm|mp)(?![a-zA-Z]) ?", sign, text).strip(" +")) for sign in "+-")
    return Shape("list", "", both)
