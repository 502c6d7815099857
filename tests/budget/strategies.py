"""Random markers, budgets and token streams: cases of the budget machine and of its slow twin.

0 and 1 may be EOS; markers are made of 2..5, so that they overlap themselves and each other; 6..9 is text,
9 a boundary of the grace period; 10 and 11 hold the first and last piece of a marker together with other
text; 12 begins a character of four bytes, 13 one of two, 14 and 15 are one and two bytes that go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from elastic import ops
from elastic.budget import Budget, Phase
from elastic.budget.machine import Machine
from elastic.budget.markers import Markers, NaturalEnd
from elastic.budget.pattern import Spelling
from tests.budget import oracle
from tests.budget.helpers import BYTES, PAD, CharacterTokenizer, Run, machine_for, run

MARKER_TOKENS = st.integers(2, 5)
TEXT_TOKENS = st.integers(6, 9)


@st.composite
def spellings(draw, letters, most: int = 4) -> Spelling:
    ids = tuple(draw(st.lists(st.sampled_from(letters), min_size=1, max_size=most)))
    first, last = draw(
        st.sampled_from([((), ()), ((), ()), ((), ()), ((10, 11), ()), ((), (10,)), ((11,), (10,))])
    )
    return Spelling(ids, frozenset(first), frozenset(last), frozenset({11} & set(first)))


@st.composite
def marker_pairs(draw) -> Markers:
    # Half of them over two tokens, so that markers overlap themselves and text that merely looks like one.
    letters = draw(st.sampled_from([(2, 3), (2, 3, 4, 5)]))
    several = st.lists(spellings(letters), min_size=1, max_size=draw(st.sampled_from([1, 1, 1, 3])))
    start, end = draw(several), draw(several)
    ends = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        other = draw(spellings(letters))
        if draw(st.booleans()):  # what is left of the end marker without the text around it
            first = draw(st.integers(0, len(end[0].ids) - 1))
            other = replace(other, ids=end[0].ids[first:])
        ends.append(NaturalEnd((other,), opens=draw(st.booleans())))
    try:
        return Markers(
            start[0].ids, end[0].ids, ends=tuple(ends), start_spellings=tuple(start), end_spellings=tuple(end)
        )
    except ValueError:  # one contains the other
        return Markers((2, 2, 3)[: len(start[0].ids)], (4, 4, 5)[: len(end[0].ids)])


@st.composite
def budgets(draw, markers: Markers) -> Budget:
    text = st.lists(st.one_of(TEXT_TOKENS, MARKER_TOKENS), max_size=3)
    short = st.lists(st.one_of(TEXT_TOKENS, TEXT_TOKENS, TEXT_TOKENS, MARKER_TOKENS), min_size=1, max_size=3)
    options: dict = {
        "on_eos": draw(st.sampled_from(["close", "close", "stop"])),
        "on_reopen": draw(st.sampled_from(["count", "forbid"])),
        "on_reclose": draw(st.sampled_from(["count", "forbid"])),
        "whole_characters": draw(st.booleans()),
    }
    thinking = draw(st.sampled_from([None, None, 0, 0, 1, 2, 3, 4, 5, 6, 8]))
    solution = draw(st.sampled_from([None, 1, 1, 2, 3, 4, 6]))
    if draw(st.booleans()):
        end = draw(st.sampled_from([markers.end, *(s.ids for s in markers.end_spellings)]))
        tail = draw(st.one_of(text, st.just(list(markers.start[:-1])), st.just(list(markers.end[:-1]))))
        options["closing"] = (*draw(text), *end, *tail)
    if thinking is not None and draw(st.integers(0, 2)) == 0:
        options |= {
            "grace": draw(st.integers(1, 6)),
            "boundary": draw(st.sampled_from([(9,), (8, 9), (2, 9), (9, 12, 13)])),
        }
    if thinking != 0 and draw(st.integers(0, 2)) == 0:
        used = st.integers(0, (thinking or 6) - 1)
        options["notices"] = tuple((draw(used), tuple(draw(short))) for _ in range(draw(st.integers(1, 3))))
    if thinking != 0 and draw(st.integers(0, 2)) == 0:
        options |= {
            "min_thinking": draw(st.integers((thinking or 4) // 2 + 1, thinking or 6)),
            "extension": tuple(draw(short)),
            "max_extensions": draw(st.integers(1, 3)),
        }
    total = None
    if draw(st.integers(0, 2)) == 0:
        total = draw(st.integers(1, 12))
        if thinking is None:
            solution = None
        else:
            total += thinking + options.get("grace", 0)
    return Budget(thinking, solution, total, **options)


@dataclass
class Case:
    """A compiled budget and its obvious twin; where a row starts, and what happens to it from outside."""

    markers: Markers
    budget: Budget
    machine: Machine
    spec: oracle.Spec
    start: Phase
    used: int = 0
    ended_at: int | None = None  # emitted tokens when thinking is ended from outside

    def oracle(self) -> oracle.Oracle:
        return oracle.Oracle(self.spec, self.start, self.used, self.ended_at)

    def first_state(self, impl=ops) -> torch.Tensor:
        phase = torch.tensor([int(self.start)], dtype=torch.int32)
        used = torch.tensor([self.used])
        return impl.new_state(torch.tensor([0]), self.machine, phase=phase, thinking_used=used)

    def run(self, stream, impl=ops) -> Run:
        return run(self.machine, stream, impl=impl, state=self.first_state(impl), ended_at=self.ended_at)


def way_of(spelling: Spelling, eos: set[int]) -> oracle.Way:
    places = [{i} for i in spelling.ids]
    places[0] |= spelling.first
    places[-1] |= spelling.last
    if len(places) == 1:
        places[0] |= spelling.last
    return oracle.Way(list(spelling.ids), [p - eos for p in places])


def found(ids: list[int], ways: list[oracle.Way]) -> list[int]:
    """Positions at which any of these ways ends."""
    return [
        k
        for k in range(len(ids))
        if any(k + 1 >= len(w.ids) and oracle.fits(ids[k + 1 - len(w.ids) : k + 1], w.places) for w in ways)
    ]


def rest_of(way: oracle.Way, head: list[int], at: int) -> list[int]:
    """F's end marker, which ends at a position of the head, in another spelling; then what follows it."""
    last = head[at] if head[at] in way.places[-1] else way.ids[-1]
    return [*way.ids[:-1], last, *head[at + 1 :]]


def joins_of(markers: Markers) -> set[int]:
    ends = [*markers.end_spellings, *(s for end in markers.ends for s in end.spellings)]
    pairs = [(a, b) for a in markers.start_spellings for b in ends]
    return {i for a, b in (*pairs, *((b, a) for a, b in pairs)) for i in a.last & b.first}


def spec_of(budget: Budget, markers: Markers, eos: set[int], blank: set[int]) -> oracle.Spec:
    own = [way_of(s, set()) for s in markers.end_spellings]
    closing = list(budget.closing or markers.end)
    tail = found(closing, own)[0] + 1 if budget.closing else len(closing)
    head = closing[:tail]
    ends = [
        oracle.End(way_of(s, eos), False, rest_of(way, head, tail - 1))
        for s, way in zip(markers.end_spellings, own, strict=True)
    ]
    for end in markers.ends:
        ways = [way_of(s, set()) for s in end.spellings]
        bare = not end.opens and any(
            list(markers.end[i : i + len(w.ids)]) == w.ids for w in ways for i in range(len(markers.end))
        )
        at = max(found(head, ways), default=tail - 1)
        for s, way in zip(end.spellings, ways, strict=True):
            ends.append(oracle.End(way_of(s, eos), end.opens, rest_of(way, head, at) if bare else []))
    return oracle.Spec(
        [way_of(s, eos) for s in markers.start_spellings],
        ends,
        closing,
        tail,
        budget.thinking,
        budget.solution,
        budget.total,
        eos,
        blank - eos,
        {i for s in markers.start_spellings for i in s.text_before},
        budget.on_eos == "stop",
        budget.on_reopen == "forbid",
        budget.on_reclose == "forbid",
        budget.whole_characters,
        budget.min_thinking,
        list(budget.extension) if budget.max_extensions else [],
        budget.max_extensions,
        [(used, list(text)) for used, text in budget.notices],
        budget.grace,
        set(budget.boundary or ()),
        joins_of(markers),
        BYTES,
        PAD,
    )


def compile_case(
    markers: Markers, budget: Budget, eos: set[int], blank: set[int], start: Phase
) -> Case | None:
    """None if the budget is illegal with these markers; the tests of the rules say which are."""
    try:
        machine = machine_for(budget, markers, CharacterTokenizer(blank), eos)
    except ValueError:
        return None
    return Case(markers, budget, machine, spec_of(budget, markers, eos, blank), start)


@st.composite
def cases(draw) -> Case:
    markers = draw(marker_pairs())
    eos = draw(st.sampled_from([{0}, {0, 1}]))
    blank = draw(st.sampled_from([{6}, {6, 7}, {6, markers.start[0]}, {6, markers.end[0]}]))
    # A token that stands for a piece of white space, with no other text in front of it, is white space.
    if any(s.ids[0] in blank for s in markers.start_spellings):
        blank = blank | {10}
    start = draw(st.sampled_from([Phase.THINKING, Phase.THINKING, Phase.OPENING, Phase.SOLUTION]))
    budget = draw(budgets(markers))
    # A text that these markers do not allow is left out rather than the whole example.
    for without in ({}, {"notices": ()}, {"notices": (), "min_thinking": 0, "max_extensions": 0}):
        case = compile_case(markers, replace(budget, **without), eos, blank, start)
        if case is not None:
            break
    else:
        case = compile_case(markers, replace(budget, closing=None, **without), eos, blank, start)
    if case is None:  # the bare marker holds another natural end
        plain = Markers((2, 2, 3), (4, 4, 5))
        case = compile_case(plain, replace(budget, closing=None, **without), eos, {6}, start)
    assert case is not None
    if start != Phase.OPENING:
        case.used = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 5, 9]))
    case.ended_at = draw(st.one_of(st.none(), st.integers(0, 12)))
    return case


@st.composite
def streams(draw, markers: Markers) -> list[int]:
    """Sampled tokens: whole markers, beginnings of them, text, and now and then an EOS."""
    ways = [s.ids for s in (*markers.end_spellings, *(s for e in markers.ends for s in e.spellings))]
    end = draw(st.sampled_from([markers.end, *ways]))
    start = draw(st.sampled_from([s.ids for s in markers.start_spellings]))
    other = draw(st.sampled_from(ways))
    segments = st.one_of(
        st.just(list(end)),
        st.just([*end[:-1], 0, end[-1]]),
        st.integers(1, 4).map(lambda n: list(end[:n])),
        st.just(list(other)),
        st.integers(1, 4).map(lambda n: list(other[:n])),
        st.just(list(start)),
        st.integers(1, 4).map(lambda n: list(start[:n])),
        st.lists(TEXT_TOKENS, min_size=1, max_size=4),
        st.lists(MARKER_TOKENS, min_size=1, max_size=3),
        st.sampled_from([[0], [1], [10], [11], [6, 6], [10, *end[1:]], [11, *start[1:]]]),
        st.sampled_from([[12, 15, 14], [13, 14], [12], [12, 14, 15], [12, 14], [13], [14], [12, 12, 12, 12]]),
    )
    blanks = st.sampled_from([[], [], [6], [6] * 31, [6] * 34])
    opening = st.sampled_from(
        [[], list(start), [11, *start[1:]], [10, *start[1:]], [start[0], *start], list(start[:-1])]
    )
    parts = [draw(blanks), draw(opening), *draw(st.lists(segments, min_size=4, max_size=14))]
    return [token for part in parts for token in part]


@st.composite
def cases_and_streams(draw) -> tuple[Case, list[int]]:
    case = draw(cases())
    return case, draw(streams(case.markers))
