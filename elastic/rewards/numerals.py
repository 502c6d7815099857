"""Exact numbers: decimals, fractions, mixed numbers, powers of ten, repeating decimals; number bases."""

import re
from fractions import Fraction

from elastic.rewards.notation import squeezed

_MAX_CHARACTERS = 1000  # Python refuses to read integers of more than 4300 digits
_MAX_EXPONENT = 1000

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(rf"({_DECIMAL})(?:[eE]([+-]?\d+))?")
_SCIENTIFIC = re.compile(rf"(?:({_DECIMAL})(?:\\times|\\cdot|\*))?10\^(?:(\d)|\{{([+-]?\d+)\}}|([+-]?\d+))")
_QUOTIENT = re.compile(rf"({_DECIMAL})/({_DECIMAL})|\\frac\{{(-?{_DECIMAL})\}}\{{(-?{_DECIMAL})\}}")
_MIXED = re.compile(r"(\d+)(?: ?\\frac\{(\d+)\}\{(\d+)\}| (\d+) ?/ ?(\d+))")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\{?(\d+)\}?")
_BASED = re.compile(
    r"\(?([0-9][0-9A-F]*|[A-F]{2,})\)?(?:_\{?\(?(?:\\text\{)?|(?:\\text\{)?\(?base\}?)(\d{1,2}|[a-z]+)[)}]*"
)
_BASES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def exact_number(text: str) -> Fraction | None:
    """The value of a numeral in `one_notation`, None for anything else."""
    if len(text) > _MAX_CHARACTERS:
        return None
    sign, text = _signed(text.strip())
    if mixed := _MIXED.fullmatch(text):
        whole, above, below = (int(part) for part in mixed.groups() if part is not None)
        # Only a proper fraction: 2\frac{3}{2} may as well be a product.
        return sign * (whole + Fraction(above, below)) if 0 < above < below else None
    # "3 5" is two numbers, not 35; a space is a separator of thousands or nothing.
    if re.search(r"\d \d", text) and not re.fullmatch(r"[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?", text):
        return None
    value = _unsigned(squeezed(text))
    return None if value is None else sign * value


def _signed(text: str) -> tuple[int, str]:
    if text[:1] in ("-", "+"):
        return (-1 if text[0] == "-" else 1), text[1:].strip()
    return 1, text


def _unsigned(text: str) -> Fraction | None:
    if plain := _PLAIN.fullmatch(text):
        return _power(Fraction(plain[1]), plain[2] or "0")
    if power := _SCIENTIFIC.fullmatch(text):
        return _power(Fraction(power[1] or 1), next(part for part in power.groups()[1:] if part))
    if quotient := _QUOTIENT.fullmatch(text):
        above, below = (Fraction(part) for part in quotient.groups() if part is not None)
        return above / below if below else None
    if repeating := _REPEATING.fullmatch(text):
        whole, fixed, period = repeating.groups()
        nines = 10 ** len(fixed) * (10 ** len(period) - 1)
        return Fraction(f"{whole or 0}.{fixed or 0}") + Fraction(int(period), nines)
    return None


def _power(value: Fraction, exponent: str) -> Fraction | None:
    if len(exponent) > 6 or abs(int(exponent)) > _MAX_EXPONENT:
        return None
    return value * Fraction(10) ** int(exponent)


def based_number(text: str) -> tuple[str, int] | None:
    """Digits and base of ``52_8``; None for anything else, also for an indexed variable."""
    match = _BASED.fullmatch(squeezed(text))
    if match is None:
        return None
    digits, name = match.groups()
    base = int(name) if name.isdecimal() else _BASES.index(name) if name in _BASES else 0
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return digits.lstrip("0") or "0", base
