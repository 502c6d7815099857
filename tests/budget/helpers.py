"""Shared by the budget tests: a tokenizer made of a list, runs of the ops, hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from elastic import ops
from elastic.budget import Budget, Phase
from elastic.machine import Machine, compile_budgets
from elastic.markers import Markers

from . import oracle

EOS, PAD = 0, 99


class ListTokenizer:
    """Token i reads texts[i]: what the machine asks of a tokenizer, and nothing more."""

    all_special_ids: tuple[int, ...] = ()
    unk_token_id = None
    eos_token_id = None
    pad_token_id = None

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def batch_decode(self, batch, **_):
        return ["".join(self.texts[i] for i in ids) for ids in batch]

    def convert_ids_to_tokens(self, ids):
        return [self.texts[i] for i in ids]


def machine_for(budget: Budget, markers: Markers, tokenizer=None, eos=(EOS,)) -> Machine:
    return compile_budgets([budget], markers, tokenizer, eos, PAD)[0]


@dataclass
class Run:
    """One row driven by a stream of sampled tokens until it is done or the stream ends."""

    tokens: list[int]
    source: list[int]
    phase: list[int]
    states: list[torch.Tensor]  # before the first token and behind each

    @property
    def state(self) -> torch.Tensor:
        return self.states[-1]

    @property
    def finish(self) -> int:
        return int(ops.finish_reason(self.state))

    @property
    def thinking(self) -> int:
        return int(ops.thinking_used(self.state))

    @property
    def solution(self) -> int:
        return int(ops.solution_used(self.state))

    @property
    def cut(self) -> bool:
        return bool(ops.thinking_cut(self.state))


def run(machine: Machine, stream, start: Phase = Phase.THINKING, impl=ops, state=None) -> Run:
    if state is None:
        state = ops.new_state(1, machine, phase=torch.tensor([int(start)], dtype=torch.int32))
    out = Run([], [], [], [state.clone()])
    for token in stream:
        tokens = torch.tensor([token])
        source = impl.budget_step_(tokens, state, machine)
        if int(source) == oracle.PAD:
            break
        out.tokens.append(int(tokens))
        out.source.append(int(source))
        out.phase.append(int(ops.last_phase(state)))
        out.states.append(state.clone())
        if bool(ops.is_done(state)):
            break
    return out


# ---- hypothesis ----
# 0 and 1 may be EOS; markers are made of 2..5, so that they overlap themselves and each other; 6..9 is text,
# 9 a boundary of the grace period; 10 and 11 hold the first and last piece of a marker together with other
# text.

MARKER_TOKENS = st.integers(2, 5)
TEXT_TOKENS = st.integers(6, 9)
ANY_TOKEN = st.one_of(MARKER_TOKENS, MARKER_TOKENS, TEXT_TOKENS, st.sampled_from([0, 1, 10, 11]))


@st.composite
def marker_pairs(draw) -> Markers:
    # Half of them over two tokens, so that markers overlap themselves and text that merely looks like one.
    letters = draw(st.sampled_from([(2, 3), (2, 3, 4, 5)]))
    ids = st.lists(st.sampled_from(letters), min_size=1, max_size=4)
    start, end = draw(ids), draw(ids)
    merged: dict = {}
    side = draw(st.sampled_from(["", "", "start_merged", "end_merged"]))
    if side:
        first, last = draw(st.sampled_from([({10, 11}, set()), (set(), {10}), ({11}, {10})]))
        merged[side] = (frozenset(first), frozenset(last))
        if side == "start_merged" and 11 in first:
            merged["text_before_start"] = frozenset({11})
    try:
        return Markers(tuple(start), tuple(end), **merged)
    except ValueError:  # one contains the other
        return Markers((2, 2, 3)[: len(start)], (4, 4, 5)[: len(end)], **merged)


@st.composite
def budgets(draw, markers: Markers) -> Budget:
    text = st.lists(st.one_of(TEXT_TOKENS, MARKER_TOKENS), max_size=3)
    short = st.lists(st.one_of(TEXT_TOKENS, TEXT_TOKENS, TEXT_TOKENS, MARKER_TOKENS), min_size=1, max_size=3)
    options: dict = {
        "on_eos": draw(st.sampled_from(["close", "close", "stop"])),
        "on_reopen": draw(st.sampled_from(["count", "forbid"])),
    }
    thinking = draw(st.sampled_from([None, None, 0, 0, 1, 2, 3, 4, 5, 6, 8]))
    solution = draw(st.sampled_from([None, 1, 1, 2, 3, 4, 6]))
    if draw(st.booleans()):
        tail = draw(st.one_of(text, st.just(list(markers.start[:-1]))))
        options["closing"] = (*draw(text), *markers.end, *tail)
    if thinking is not None and draw(st.integers(0, 2)) == 0:
        options |= {
            "grace": draw(st.integers(1, 6)),
            "boundary": draw(st.sampled_from([(9,), (8, 9), (2, 9)])),
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
    """A compiled budget and its obvious twin."""

    markers: Markers
    budget: Budget
    machine: Machine
    spec: oracle.Spec
    start: Phase

    def oracle(self) -> oracle.Oracle:
        return oracle.Oracle(self.spec, self.start == Phase.THINKING)


def spec_of(budget: Budget, markers: Markers, eos: set[int], blank: set[int]) -> oracle.Spec:
    def places(ids, merged):
        out = [{i} for i in ids]
        out[0] |= merged[0]
        out[-1] |= merged[1]
        return [p - eos for p in out]

    end = places(markers.end, markers.end_merged)
    closing = list(budget.closing or markers.end)
    m = len(end)
    at = [i for i in range(len(closing) - m + 1) if oracle.fits(closing[i : i + m], end)]
    return oracle.Spec(
        places(markers.start, markers.start_merged),
        end,
        closing,
        at[0],
        budget.thinking,
        budget.solution,
        list(markers.start),
        budget.total,
        eos,
        blank - eos,
        set(markers.text_before_start),
        budget.on_eos == "stop",
        budget.on_reopen == "forbid",
        budget.min_thinking,
        list(budget.extension) if budget.max_extensions else [],
        budget.max_extensions,
        [(used, list(text)) for used, text in budget.notices],
        budget.grace,
        set(budget.boundary or ()),
        PAD,
    )


def compile_case(
    markers: Markers, budget: Budget, eos: set[int], blank: set[int], start: Phase
) -> Case | None:
    """None if the budget is illegal with these markers; the tests of the rules say which are."""
    tokenizer = ListTokenizer([" " if i in blank else f"t{i}" for i in range(12)])
    try:
        machine = machine_for(budget, markers, tokenizer, eos)
    except ValueError:
        return None
    return Case(markers, budget, machine, spec_of(budget, markers, eos, blank), start)


@st.composite
def cases(draw) -> Case:
    markers = draw(marker_pairs())
    eos = draw(st.sampled_from([{0}, {0, 1}]))
    blank = draw(st.sampled_from([{6}, {6, 7}, {6, markers.start[0]}, {6, markers.end[0]}]))
    start = draw(st.sampled_from([Phase.THINKING, Phase.THINKING, Phase.OPENING]))
    budget = draw(budgets(markers))
    # A text that these markers do not allow is left out rather than the whole example.
    for without in ({}, {"notices": ()}, {"notices": (), "min_thinking": 0, "max_extensions": 0}):
        case = compile_case(markers, replace(budget, **without), eos, blank, start)
        if case is not None:
            return case
    case = compile_case(markers, replace(budget, closing=None, **without), eos, blank, start)
    assert case is not None
    return case


@st.composite
def streams(draw, markers: Markers) -> list[int]:
    """Sampled tokens: whole markers, beginnings of them, text, and now and then an EOS."""
    segments = st.one_of(
        st.just(list(markers.end)),
        st.just([*markers.end[:-1], 0, markers.end[-1]]),
        st.integers(1, 4).map(lambda n: list(markers.end[:n])),
        st.just(list(markers.start)),
        st.integers(1, 4).map(lambda n: list(markers.start[:n])),
        st.lists(TEXT_TOKENS, min_size=1, max_size=4),
        st.lists(MARKER_TOKENS, min_size=1, max_size=3),
        st.sampled_from([[0], [1], [10], [11], [6, 6], [10, *markers.end[1:]], [11, *markers.start[1:]]]),
    )
    blanks = st.sampled_from([[], [], [6], [6] * 31, [6] * 34])
    opening = st.sampled_from(
        [
            [],
            list(markers.start),
            [11, *markers.start[1:]],
            [markers.start[0], *markers.start],
            list(markers.start[:-1]),
        ]
    )
    parts = [draw(blanks), draw(opening), *draw(st.lists(segments, min_size=4, max_size=14))]
    return [token for part in parts for token in part]


@st.composite
def cases_and_streams(draw) -> tuple[Case, list[int]]:
    case = draw(cases())
    return case, draw(streams(case.markers))
