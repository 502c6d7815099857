"""Random markers, budgets and token streams, and the Python that compiles them.

0 and 1 may be EOS; markers are made of 2 to 5, so that they overlap themselves and each other; 6 to 9 is
text, 6 or 7 white space, 9 a boundary of the grace period; 10 and 11 hold a piece of a marker and other text;
12 and 13 begin a character of several bytes, 14 and 15 go on with one.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import elastic.budget
import elastic.budget.machine
import elastic.budget.markers
from elastic.budget import token_text
from elastic.budget.pattern import Spelling
from tests.stress.call import Expression
from tests.stress.draw import Draw

PAD, VOCAB = 99, 100


class Texts:
    """A tokenizer that is a list: what the machine asks of one, and nothing more."""

    all_special_ids: tuple[int, ...] = ()
    unk_token_id = eos_token_id = pad_token_id = None

    def __init__(self, blank: int) -> None:
        self.texts = [" " if i == blank else f"t{i}" for i in range(16)]
        self.codes = [0] * 12 + [3, 1, 5, 6]

    def __len__(self) -> int:
        return len(self.texts)

    def batch_decode(self, batch: Any, **_: Any) -> list[str]:
        return ["".join(self.texts[i] for i in ids) for ids in batch]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.texts[i] for i in ids]


def compile_budgets(budgets: list[elastic.budget.Budget], markers: Any, texts: Texts, *more: Any) -> Any:
    """`elastic.budget.machine.compile_budgets` with what this tokenizer's tokens leave of a character."""
    real = token_text.character_codes
    token_text.character_codes = lambda tokenizer: tokenizer.codes
    try:
        return elastic.budget.machine.compile_budgets(budgets, markers, texts, *more)
    finally:
        token_text.character_codes = real


def machine_of(draw: Draw) -> tuple[Expression, elastic.budget.markers.Markers]:
    """One to three budgets that are legal with their markers."""
    eos = draw.pick([0], [0, 1], [])
    budgets: list[elastic.budget.Budget] = []
    attempts = 0
    while not budgets or (draw.chance(0.4) and len(budgets) < 3):
        if not budgets and attempts % 20 == 0:  # some markers allow hardly any text
            markers, text = markers_of(draw)
            blank = draw.pick(6, 6, 7, markers.start[0])
        attempts += 1
        try:
            budget = budget_of(draw, markers)
            compile_budgets([budget], markers, Texts(blank), eos, PAD)
        except ValueError:  # a text that these markers do not allow; the tests of the rules say which
            continue
        budgets.append(budget)
    machine, _ = compile_budgets(budgets, markers, Texts(blank), eos, PAD)
    made = ", ".join(map(budget_text, machine.budgets))
    return Expression(f"compile_budgets([{made}], {text}, Texts({blank}), {eos}, {PAD})[0]", machine), markers


def markers_of(draw: Draw) -> tuple[elastic.budget.markers.Markers, str]:
    """Half of them over two tokens, so that they overlap themselves and text that merely looks like one."""
    while True:
        letters = draw.pick((2, 3), (2, 3, 4, 5))
        starts, ends = (
            [spelling_of(draw, letters) for _ in range(draw.pick(1, 1, 1, 2, 3))] for _ in range(2)
        )
        others = []
        for _ in range(draw.pick(0, 0, 1, 2)):
            other, opens = spelling_of(draw, letters), draw.chance(0.5)
            if draw.chance(0.5):  # what is left of the end marker without the text around it
                other = replace(other, ids=ends[0].ids[draw.randrange(len(ends[0])) :])
            others.append(elastic.budget.markers.NaturalEnd((other,), opens=opens))
        arguments = (starts[0].ids, ends[0].ids)
        keywords = {"ends": tuple(others), "start_spellings": tuple(starts), "end_spellings": tuple(ends)}
        try:
            made = elastic.budget.markers.Markers(*arguments, **keywords)
        except ValueError:  # one contains the other, or there are too many places
            continue
        given = ", ".join(f"{k}={v!r}" for k, v in keywords.items())
        return made, f"Markers({arguments[0]}, {arguments[1]}, {given})"


def spelling_of(draw: Draw, letters: tuple[int, ...]) -> Spelling:
    ids = tuple(draw.choices(letters, k=draw.randint(1, 4)))
    first, last = draw.pick(((), ()), ((), ()), ((), ()), ((10, 11), ()), ((), (10,)), ((11,), (10,)))
    return Spelling(ids, frozenset(first), frozenset(last), frozenset({11} & set(first)))


def budget_of(draw: Draw, markers: elastic.budget.markers.Markers) -> elastic.budget.Budget:
    def text(least: int) -> tuple[int, ...]:
        return tuple(draw.pick(6, 7, 8, 9, 9, draw.randint(2, 5)) for _ in range(draw.randint(least, 3)))

    thinking = draw.pick(None, 0, 0, 1, 2, 3, 4, 5, 6, 8)
    solution = draw.pick(None, 1, 1, 2, 3, 4, 6)
    options: dict[str, Any] = {"on_eos": draw.pick("close", "close", "stop")}
    options["on_reopen"] = draw.pick("count", "forbid")
    options["on_reclose"] = draw.pick("count", "forbid")
    options["whole_characters"] = draw.chance(0.5)
    if draw.chance(0.5):
        end = draw.pick(markers.end, *(s.ids for s in markers.end_spellings))
        options["closing"] = (*text(0), *end, *draw.pick(text(0), markers.start[:-1], markers.end[:-1]))
    if thinking is not None and draw.chance(0.3):
        options |= {"grace": draw.randint(1, 6), "boundary": draw.pick((9,), (8, 9), (2, 9))}
    if thinking != 0 and draw.chance(0.3):
        used = sorted(draw.sample(range(thinking or 6), draw.randint(1, min(3, thinking or 6))))
        options["notices"] = tuple((at, text(1)) for at in used)
    if thinking != 0 and draw.chance(0.3):
        options["min_thinking"] = draw.randint((thinking or 4) // 2 + 1, thinking or 6)
        options |= {"extension": text(1), "max_extensions": draw.randint(1, 3)}
    total = None
    if draw.chance(0.3):
        total = draw.randint(1, 12) + (thinking or 0) + options.get("grace", 0)
        solution = None if thinking is None else solution
    return elastic.budget.Budget(thinking, solution, total, **options)


def budget_text(budget: elastic.budget.Budget) -> str:
    """Python that makes it: what is not the default."""
    plain = elastic.budget.Budget(None, None)
    given = {f.name: getattr(budget, f.name) for f in fields(budget)}
    kept = {k: v for k, v in given.items() if k in ("thinking", "solution") or v != getattr(plain, k)}
    return f"Budget({', '.join(f'{k}={v!r}' for k, v in kept.items())})"


def stream_of(draw: Draw, markers: elastic.budget.markers.Markers) -> list[int]:
    """Sampled tokens: whole markers, beginnings of them, text, and now and then an EOS."""
    ends = [s.ids for s in markers.ends_pattern.spellings]
    start = list(draw.pick(*(s.ids for s in markers.start_spellings)))
    end, other = list(draw.pick(markers.end, *ends)), list(draw.pick(*ends))
    stream = draw.pick([], [], [6], [6] * 31, [6] * 34)
    stream = stream + draw.pick([], start, [11, *start[1:]], [start[0], *start], start[:-1])
    foreign = draw.chance(0.3)  # text of characters of several bytes
    for _ in range(draw.randint(3, 10)):
        if foreign and draw.chance(0.8):
            stream = stream + draw.pick([12, 15, 14], [13, 14], [12, 14, 15], [12, 12, 12], [13, 8])
            continue
        stream = stream + draw.pick(
            end,
            [*end[:-1], 0, end[-1]],
            end[: draw.randint(1, 4)],
            other,
            other[: draw.randint(1, 4)],
            start,
            start[: draw.randint(1, 4)],
            [draw.randint(6, 9) for _ in range(draw.randint(1, 4))],
            [draw.randint(2, 5) for _ in range(draw.randint(1, 3))],
            draw.pick([0], [1], [10], [11], [6, 6], [10, *end[1:]], [11, *start[1:]]),
            draw.pick([12, 15, 14], [13, 14], [12], [12, 14], [13], [14], [12, 12, 12, 12]),
        )
    return stream
