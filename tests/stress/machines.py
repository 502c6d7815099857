"""Random markers, budgets and token streams, and the Python that compiles them.

0 and 1 may be EOS; markers are made of 2 to 5, so that they overlap themselves and each other; 6 to 9 is
text, 6 or 7 white space, 9 a boundary of the grace period; 10 and 11 hold a piece of a marker and other text.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import elastic.budget
import elastic.machine
import elastic.markers

from .call import Expression
from .draw import Draw

PAD, VOCAB = 99, 100


class Texts:
    """A tokenizer that is a list: what the machine asks of one, and nothing more."""

    all_special_ids: tuple[int, ...] = ()
    unk_token_id = eos_token_id = pad_token_id = None

    def __init__(self, blank: int) -> None:
        self.texts = [" " if i == blank else f"t{i}" for i in range(12)]

    def __len__(self) -> int:
        return len(self.texts)

    def batch_decode(self, batch: Any, **_: Any) -> list[str]:
        return ["".join(self.texts[i] for i in ids) for ids in batch]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.texts[i] for i in ids]


def machine_of(draw: Draw) -> tuple[Expression, elastic.markers.Markers]:
    """One to three budgets that are legal with their markers."""
    markers, text = markers_of(draw)
    eos = draw.pick([0], [0, 1], [])
    blank = draw.pick(6, 6, 7, markers.start[0])
    budgets: list[elastic.budget.Budget] = []
    while not budgets or (draw.chance(0.4) and len(budgets) < 3):
        try:
            budget = budget_of(draw, markers)
            elastic.machine.compile_budgets([budget], markers, Texts(blank), eos, PAD)
        except ValueError:  # a text that these markers do not allow; the tests of the rules say which
            continue
        budgets.append(budget)
    machine, _ = elastic.machine.compile_budgets(budgets, markers, Texts(blank), eos, PAD)
    made = ", ".join(map(budget_text, machine.budgets))
    return Expression(f"compile_budgets([{made}], {text}, Texts({blank}), {eos}, {PAD})[0]", machine), markers


def markers_of(draw: Draw) -> tuple[elastic.markers.Markers, str]:
    """Half of them over two tokens, so that they overlap themselves and text that merely looks like one."""
    while True:
        letters = draw.pick((2, 3), (2, 3, 4, 5))
        start, end = (tuple(draw.choices(letters, k=draw.randint(1, 4))) for _ in range(2))
        merged: dict[str, Any] = {}
        if draw.chance(0.4):
            side, none = draw.pick("start_merged", "end_merged"), frozenset()
            pieces = (frozenset({10, 11}), none), (none, frozenset({10})), (frozenset({11}), frozenset({10}))
            merged[side] = draw.pick(*pieces)
            if side == "start_merged" and 11 in merged[side][0]:
                merged["text_before_start"] = frozenset({11})
        try:
            made = elastic.markers.Markers(start, end, **merged)
        except ValueError:  # one contains the other
            continue
        return made, f"Markers({start}, {end}{''.join(f', {k}={v}' for k, v in merged.items())})"


def budget_of(draw: Draw, markers: elastic.markers.Markers) -> elastic.budget.Budget:
    def text(least: int) -> tuple[int, ...]:
        return tuple(draw.pick(6, 7, 8, 9, 9, draw.randint(2, 5)) for _ in range(draw.randint(least, 3)))

    thinking = draw.pick(None, 0, 0, 1, 2, 3, 4, 5, 6, 8)
    solution = draw.pick(None, 1, 1, 2, 3, 4, 6)
    options: dict[str, Any] = {"on_eos": draw.pick("close", "close", "stop")}
    options["on_reopen"] = draw.pick("count", "forbid")
    if draw.chance(0.5):
        options["closing"] = (*text(0), *markers.end, *draw.pick(text(0), markers.start[:-1]))
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


def stream_of(draw: Draw, markers: elastic.markers.Markers) -> list[int]:
    """Sampled tokens: whole markers, beginnings of them, text, and now and then an EOS."""
    start, end = list(markers.start), list(markers.end)
    stream = draw.pick([], [], [6], [6] * 31, [6] * 34)
    stream = stream + draw.pick([], start, [11, *start[1:]], [start[0], *start], start[:-1])
    for _ in range(draw.randint(3, 10)):
        stream = stream + draw.pick(
            end,
            [*end[:-1], 0, end[-1]],
            end[: draw.randint(1, 4)],
            start,
            start[: draw.randint(1, 4)],
            [draw.randint(6, 9) for _ in range(draw.randint(1, 4))],
            [draw.randint(2, 5) for _ in range(draw.randint(1, 3))],
            draw.pick([0], [1], [10], [11], [6, 6], [10, *end[1:]], [11, *start[1:]]),
        )
    return stream
