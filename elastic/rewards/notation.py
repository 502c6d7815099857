"""One notation for answers: Unicode and LaTeX variants become one spelling; meaning is decided elsewhere."""

import re
import unicodedata

_COMMANDS = {
    **dict.fromkeys("⋅·∙•", "cdot"),
    **dict(zip("×÷∞±∓", ("times", "div", "infty", "pm", "mp"), strict=True)),
    **dict(zip("≤⩽≥⩾≠≈∈", ("le", "le", "ge", "ge", "ne", "approx", "in"), strict=True)),
    **dict(zip("∪∩∖∅⟨⟩∠", ("cup", "cap", "setminus", "emptyset", "langle", "rangle", "angle"), strict=True)),
}
_OTHERS = {
    **dict.fromkeys("−–—‐‑‒﹣－", "-"),
    **dict.fromkeys("∕⁄", "/"),
    **dict.fromkeys("º˚", "°"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "、": ",",
    **{letter: rf"\mathbb{{{plain}}}" for letter, plain in zip("ℝℤℂℚℕ", "RZCQN", strict=True)},
}
_VULGAR_FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"


def _greek(letter: str) -> str:
    name = unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    return f"\\{name.capitalize() if letter.isupper() else name} "


def _vulgar(fraction: str) -> str:
    above, below = unicodedata.normalize("NFKC", fraction).split("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


_TABLE = str.maketrans(
    {character: f"\\{command} " for character, command in _COMMANDS.items()}
    | _OTHERS
    | {letter: _greek(letter) for letter in _GREEK}
    | {fraction: _vulgar(fraction) for fraction in _VULGAR_FRACTIONS}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FUNCTIONS = "arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|exp"
_WITH_ARGUMENTS = re.compile(r"\\(frac|sqrt)(?![a-zA-Z])")

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # These separate thousands wherever they stand; a plain comma is for `shape` to judge.
        (r"(?<=\d)(?:,\\!|\{,\}|\\,|\\!)\s*(?=\d{3}(?!\d))", ""),
        (r"\{,\}", ","),
        (r"^(-?)\$(?=-?[\d.])(?=[^$]*$)", r"\1\\$"),  # a lone dollar in front of a number is money
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", ""),
        (r"\\\$", "$"),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
        (r"(?<!\\)\\!", ""),
        (r"\\\\\[[^\[\]]*\]", r"\\\\"),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s+", " "),
        (r"\\math(?:rm|bf|it)\{([ei])\}", r"\1"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)\s*\{", r"\\text{"),
        (r"(?<=[\d}]) ?(\\text\{)? ?hundred(?![a-z])", r"\\times 10^{2}\1"),
        (r"(?<=[\d}]) ?(\\text\{)? ?thousand(?![a-z])", r"\\times 10^{3}\1"),
        (r"(?<=[\d}]) ?(\\text\{)? ?million(?![a-z])", r"\\times 10^{6}\1"),
        (r"(?<=[\d}]) ?(\\text\{)? ?billion(?![a-z])", r"\\times 10^{9}\1"),
        (r"\\text\{\s*\}", ""),
        (r"\\(?:lbrace|\{)\s*", r"\\{"),
        (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\(?:neq|ne)(?![a-zA-Z])|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:varnothing|emptyset)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", "°"),
        (r"°\s*\\text\{\s*([CF])\s*\}", r"°\1"),
        (r"\^\s*\{?\s*(?:\\text\{)?\s*(st|nd|rd|th)\s*\}{,2}", r"\1"),
        (r"\\text\{\s*degrees?\s*\}|(?<=[\d}]) ?degrees?(?![a-zA-Z])", "°"),
        (r"\\%|\\text\{\s*(?:percent|\\%|%)\s*\}|(?<=[\d}]) ?percent(?![a-zA-Z])", "%"),
        (r"(?<![\\a-zA-Z])(?:infinity|inf)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![a-zA-Z])([ap])\.m\.?", r"\1m"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1"),
        (r"√\s*\(([^()]*)\)|(?<![a-zA-Z\\])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1\2}"),
        (r"√\s*(\d+(?:\.\d+)?|[a-zA-Z]|\\pi)", r"\\sqrt{\1}"),
        (r"\^\{(\w)\}(?!\w)", r"^\1"),
        (r"\s+", " "),
    )
)


def one_notation(text: str) -> str:
    """An answer as LaTeX with one command per symbol, and single spaces."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
    text = text.translate(_TABLE)
    # Full-width digits and the like; last, since NFKC would turn a superscript 2 into a plain one.
    text = unicodedata.normalize("NFKC", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _braced(text).strip().strip("*").strip()
    return re.sub(r"(?:\s|\\\\|(?<!\.)\.(?!\.))+$", "", text)


def _braced(text: str) -> str:
    """`\\frac12` as `\\frac{1}{2}`, `\\sqrt2` as `\\sqrt{2}`."""
    # From the right: inner arguments have their braces before the outer ones are looked at.
    for match in reversed(list(_WITH_ARGUMENTS.finditer(text))):
        at = match.end()
        for _ in range(2 if match[1] == "frac" else 1):
            space = len(text[at:]) - len(text[at:].lstrip())
            text = text[:at] + text[at + space :]
            if text[at : at + 1] in ("{", "["):
                at = closing(text, at) + 1
            elif argument := re.match(r"\\[a-zA-Z]+|[a-zA-Z\d]", text[at:]):
                text = f"{text[:at]}{{{argument[0]}}}{text[at + argument.end() :]}"
                at += argument.end() + 2
    return text


def closing(text: str, start: int) -> int:
    """Where the bracket at ``start`` closes, of any kind: intervals may be half open. -1 if it does not."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
            if depth == 0:
                return at
    return -1


def squeezed(text: str) -> str:
    """The text without its spaces, except those that end a command's name."""
    return re.sub(r"(\\[a-zA-Z]+) (?=[a-zA-Z])|\s+", lambda m: f"{m[1]} " if m[1] else "", text)
