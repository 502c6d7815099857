"""Splits a unit, a currency or a percent sign from the value it belongs to."""

import re
from typing import NamedTuple

_CURRENCIES = "$€£¥₹₽₩"
_ABBREVIATIONS = "mm|cm|dm|km|ft|mg|kg|ml|mph|km/h|m/s|am|pm|st|nd|rd|th"
_SHORT = {
    **dict.fromkeys(("dollar", "usd"), "$"),
    **dict.fromkeys(("euro", "eur"), "€"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict(zip(("millimeter", "centimeter", "meter", "kilometer"), ("mm", "cm", "m", "km"), strict=True)),
    **dict(zip(("inch", "minute", "gram", "kilogram", "cent"), ("in", "min", "g", "kg", "¢"), strict=True)),
}
_POWER = r"(?:\^(?:\d|\{\d\}))?"
_FRONT = re.compile(rf"([-+]?) ?([{_CURRENCIES}]|\\text\{{ ?Rs\.? ?\}}|Rs\.?) ?([-+]?[\d.].*)")
_BEHIND = tuple(
    re.compile(rf"{value} ?({unit}{_POWER})")
    for value, unit in (
        (r"(.*(?:\d|\\pi|\\sqrt).*?)", rf"(?:\\text\{{[^{{}}]*\}}|°[CF]?|[{_CURRENCIES}¢])"),
        (r"(.*[\d}]|.*\\pi)", rf"(?:{_ABBREVIATIONS})"),
        # Any other word needs a space in front, and a number before that: `2ab` and `2x^2 yz` are products.
        (
            r"([-+\d./ ]*\d|[-+\d ]*\\frac\{\d+\}\{\d+\}|.*10\^\{?[-+\d]+\}?)(?= )",
            r"(?:m|[a-zA-Z]{2,}(?: [a-zA-Z]+)*)",
        ),
    )
)
_LETTER = re.compile(rf"[a-zA-Z°{_CURRENCIES}¢]")
_UNIT = re.compile(rf"(?:\\text\{{)? ?(.*?) ?\}}?({_POWER})")
_PLURAL = re.compile(r"(?<=ch|sh)es$|(?<=x)es$|(?<=[a-z]{2})(?<!s)s$")
_SQUARE = re.compile(r"(square|sq\.?|cubic|cu\.?) (.+)")
# Words that are no unit: they change the value ("3 tenths") or qualify it ("5 or more").
_NO_UNIT = re.compile(
    r"[^a-z .°/¢$€£¥₹₽₩^\d-]|\b(?:or|and|not|no|more|less|than|to|at|least|most|over|under|below|above|mod|"
    r"wrong|negative|minus|plus|times|false|dozen|half|halves|squared|cubed|factorial|percent|quarters?|base|"
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?)\b"
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


class Amount(NamedTuple):
    """A value apart from its unit.

    Attributes:
        value: what is left.
        unit: its normal spelling, empty if none is named.
        percent: whether a percent sign stood behind it.
    """

    value: str
    unit: str = ""
    percent: bool = False


def amount(text: str) -> Amount:
    """Splits `\\$32`, `5.4 \\text{ cents}`, `12 apples`, `90°` and `50%`."""
    text = text.strip()
    if not _LETTER.search(text) and not text.endswith("%"):
        return Amount(text)
    if front := _FRONT.fullmatch(text):
        rest = amount(front[1] + front[3])
        return rest._replace(unit=f"{_unit(front[2])} {rest.unit}".strip())
    if text.endswith("%"):
        return Amount(text[:-1].strip(), percent=True)
    for pattern in _BEHIND:
        if behind := pattern.fullmatch(text):
            unit = _unit(behind[2])
            if _NO_UNIT.search(unit) or (unit == "°" and _TRIGONOMETRIC.search(text)):
                return Amount(text)
            value = behind[1].strip()
            return Amount(value.rstrip("% "), unit, percent=value.endswith("%"))
    return Amount(text)


def _unit(text: str) -> str:
    """`\\text{ Inches}^{2}` and `square inch` as `in^2`."""
    match = _UNIT.fullmatch(text)
    assert match is not None
    name, power = match[1].lower(), match[2].strip("^{}")
    if square := _SQUARE.fullmatch(name):
        name, power = square[2], "2" if square[1].startswith("s") else "3"
    name = _PLURAL.sub("", name)
    return _SHORT.get(name, name) + (f"^{power}" if power else "")
