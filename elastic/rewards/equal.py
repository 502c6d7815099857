"""Whether two answers are the same: their kinds by text rules, their values as numbers or by math-verify.

A right answer that counts as wrong costs a sample; a wrong one that counts as right teaches the model. So
what no rule finds equal is different.
"""

import re
from dataclasses import replace
from fractions import Fraction

from elastic.rewards.judge import same_to_math_verify
from elastic.rewards.notation import one_notation, squeezed
from elastic.rewards.numerals import based_number, exact_number
from elastic.rewards.shape import Shape, depths, flat, shape_of
from elastic.rewards.units import Amount, amount
from elastic.rewards.words import same_words, words

_MAX_CHARACTERS = 1000
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)°")
_EMPTY_SET = Shape("value", "\\emptyset")
_MAX_DEPTH = 30  # brackets in brackets
_FRACTION_BEHIND_NUMBER = re.compile(r"(?<![\d.^_])(\d+) ?\\frac\{(\d+)\}\{(\d+)\}")


def equal_answers(stated: str, answer: str) -> bool:
    """Whether ``stated`` says what the reference ``answer`` says; docs/grading.md has the rules."""
    left, right = one_notation(stated), one_notation(answer)
    if not left or not right:
        return False
    if left == right:
        return True
    if any(len(text) > _MAX_CHARACTERS or max(depths(text)) > _MAX_DEPTH for text in (left, right)):
        return False
    return _same(shape_of(left), shape_of(right))


def _same(left: Shape, right: Shape) -> bool:
    if left == right:
        return True
    if left.kind == "relation" and left.parts and right.kind == "value":
        return _same(left.parts[0], right)  # a reference that is an equation asks for all of it
    if "relation" in (left.kind, right.kind):
        return _same_relations(left, right)
    names = _names(left), _names(right)
    if all(names) and names[0] != names[1]:
        return _same_relations(left, right)
    if all(names) and len(names[0]) > 1:
        return _same_members(left, right)
    if len({name.split("_")[0] for name in names[0] | names[1]}) > 1:
        return False  # several names are needed to tell their values apart
    if {left.kind, right.kind} == {"list", "union"}:
        # `(1,2) or (3,4)` may be points, not intervals; `x>1, x<3` means both, not either.
        return not any(names) and "or" in (left.text, right.text) and _matched(left.parts, right.parts)
    left, right = _bare(left), _bare(right)
    if "list" in (left.kind, right.kind) or left.text == right.text == "{}":
        return _same_members(left, right)
    if left.kind != right.kind:
        # A set of one value is the value.
        return any(
            a.text == "{}" and len(a.parts) == 1 and a.parts[0] != _EMPTY_SET and _same(a.parts[0], b)
            for a, b in _both(left, right)
        )
    if left.kind == "value":
        return _same_values(left.text, right.text)
    if left.kind == "union":
        return _matched(left.parts, right.parts)
    return left.text == right.text and _pairwise(left.parts, right.parts)


def _both(left: Shape, right: Shape) -> tuple[tuple[Shape, Shape], tuple[Shape, Shape]]:
    return (left, right), (right, left)


def _names(shape: Shape) -> set[str]:
    """The names that an answer gives values to."""
    parts = shape.parts if shape.kind == "list" else (shape,)
    return {part.text for part in parts if part.kind == "assignment"}


def _bare(shape: Shape) -> Shape:
    """`x = 5` as `5`, and `x = 1, x = 2` as `1, 2`."""
    if shape.kind == "assignment":
        return shape.parts[0]
    if shape.kind != "list":
        return shape
    values = (part.parts[0] if part.kind == "assignment" else part for part in shape.parts)
    return replace(shape, parts=flat(values))


def _same_members(left: Shape, right: Shape) -> bool:
    """Compares sets and lists without brackets: values in any order, words (a ranking, say) in order."""
    parts = [shape.parts if _unordered(shape) else (shape,) for shape in (left, right)]
    ranking = all(part.kind == "value" and words(part.text) is not None for part in parts[1])
    if ranking and left.kind == right.kind == "list":
        return {left.text, right.text} != {"or", "and"} and _pairwise(*parts)
    return _matched(*parts)


def _unordered(shape: Shape) -> bool:
    return shape.kind == "list" or (shape.kind == "group" and shape.text == "{}")


def _pairwise(left: tuple[Shape, ...], right: tuple[Shape, ...]) -> bool:
    return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))


def _matched(left: tuple[Shape, ...], right: tuple[Shape, ...]) -> bool:
    if len(left) != len(right):
        return False
    rest = list(right)
    for part in left:
        # Parts with the same text need no further comparison.
        found = next((other for other in rest if other == part), None)
        found = found or next((other for other in rest if _same(part, other)), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def _same_relations(left: Shape, right: Shape) -> bool:
    texts = [_written(shape) for shape in (left, right)]
    return None not in texts and same_to_math_verify(texts[0] or "", texts[1] or "")


def _written(shape: Shape) -> str | None:
    """An equation as text; None for anything else."""
    if shape.kind == "relation":
        return shape.text
    if shape.kind == "assignment" and shape.parts[0].kind == "value":
        return f"{shape.text}={shape.parts[0].text}"
    return None


def _same_values(left: str, right: str) -> bool:
    if squeezed(left) == squeezed(right) and not re.search(r"\d \d", left + "|" + right):
        return True
    bases = based_number(left), based_number(right)
    if bases != (None, None):
        return bases[0] == bases[1]
    stated, answer = amount(left), amount(right)
    # A unit that only one of them names is no contradiction; two names for it are.
    if stated.unit and answer.unit and stated.unit != answer.unit:
        return False
    if any(a.percent and b.unit and not b.percent for a, b in ((stated, answer), (answer, stated))):
        return False
    said = words(stated.value), words(answer.value)
    if said != (None, None):
        if None not in said:
            return stated.percent == answer.percent and same_words(said[0] or "", said[1] or "")
        single = [word for word in said if word is not None and len(word) == 1]
        if not single:
            return False
    numbers = exact_number(stated.value), exact_number(answer.value)
    if numbers[0] is not None and numbers[1] is not None:
        return _same_numbers((numbers[0], stated.percent), (numbers[1], answer.percent))
    return same_to_math_verify(_for_the_judge(stated), _for_the_judge(answer))


def _for_the_judge(amount: Amount) -> str:
    """The value without what math-verify misreads: percent, degrees, mixed numbers of improper fractions."""
    text = _FRACTION_BEHIND_NUMBER.sub(_mixed_or_product, amount.value)
    text = _DEGREES.sub(r"{(\\frac{\1\\pi}{180})}", text)
    return f"\\frac{{{text}}}{{100}}" if amount.percent else text


def _mixed_or_product(match: re.Match[str]) -> str:
    whole, above, below = (int(part) for part in match.groups())
    if 0 < above < below:
        return f"\\frac{{{whole * below + above}}}{{{below}}}"
    return f"{whole}\\cdot\\frac{{{above}}}{{{below}}}"


def _same_numbers(stated: tuple[Fraction, bool], answer: tuple[Fraction, bool]) -> bool:
    """Exact comparison of (number, whether a percent sign stood behind it).

    A percent sign divides by 100, except against a reference above 1 without the sign: "What percent ...?"
    has references like 50, which `50%` answers. A reference up to 1 may be a share: 0.5% is not 0.5. A
    reference with the sign is a share: 50 is not 50%.
    """
    values = [value / 100 if percent else value for value, percent in (stated, answer)]
    if stated[1] and not answer[1] and abs(answer[0]) > 1 and stated[0] == answer[0]:
        return True
    return values[0] == values[1]
