"""A slow, obvious model of the budget rules, written from the specification and sharing nothing with the
code.

It keeps no counters and no automaton. Before each token it reads the whole history again: it searches for
markers by comparing slices, counts sampled tokens by counting, and knows how far a forced text has come by
looking at the tokens that carry its tag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SAMPLED, FORCED, PAD = range(3)
OPENING, THINKING, CLOSING, NOTICE, SOLUTION, DONE = range(6)
RUNNING, STOP, SOLUTION_BUDGET, TOTAL_BUDGET = range(4)
OPENING_WHITESPACE = 32


class Entry(NamedTuple):
    token: int
    source: int
    phase: int
    tag: str  # which forced text the token belongs to; "" if sampled


@dataclass
class Spec:
    """A budget as ids. `closing` is F, `marker_at` where the end marker stands in it."""

    start: list[set[int]]  # for each place of the start marker, the tokens that can stand there
    end: list[set[int]]
    closing: list[int]
    marker_at: int
    thinking: int | None
    solution: int | None
    start_ids: list[int]
    total: int | None = None
    eos: set[int] = field(default_factory=set)
    blank: set[int] = field(default_factory=set)
    text_before_start: set[int] = field(default_factory=set)
    eos_stops: bool = False
    forbid: bool = False
    min_thinking: int = 0
    extension: list[int] = field(default_factory=list)
    max_extensions: int = 0
    notices: list[tuple[int, list[int]]] = field(default_factory=list)
    grace: int = 0
    boundary: set[int] = field(default_factory=set)
    pad: int = 0


class View(NamedTuple):
    """What the history amounts to."""

    phase: int  # OPENING, THINKING or SOLUTION, forced texts aside
    thinking: int  # sampled thinking tokens that count
    solution: int
    begun: int  # tokens of an end marker in progress, while THINKING


def fits(tokens: list[int], places: list[set[int]]) -> bool:
    return len(tokens) == len(places) and all(t in p for t, p in zip(tokens, places, strict=True))


class Oracle:
    def __init__(self, spec: Spec, opened: bool) -> None:
        self.spec, self.opened = spec, opened

    # ---- reading the history ----

    def opening(self, tokens: list[int]) -> tuple[str, int]:
        """("thinking", its first position), or ("solution" or "opening", first position that counts)."""
        s = self.spec
        places = [s.start[0] - s.text_before_start, *s.start[1:]]
        for k in range(1, len(tokens) + 1):
            # white space, then a start marker or its beginning: try every place where the marker may begin
            splits = [
                j
                for j in range(min(k, OPENING_WHITESPACE) + 1)
                if set(tokens[:j]) <= s.blank and k - j <= len(places) and fits(tokens[j:k], places[: k - j])
            ]
            if splits and k - splits[0] == len(places):
                return "thinking", k
            first_text = next((i for i in range(k) if tokens[i] not in s.blank), k)
            if not splits:
                return "solution", min(first_text, k - 1)
        return "opening", next((i for i, t in enumerate(tokens) if t not in s.blank), len(tokens))

    def view(self, history: list[Entry]) -> View:
        s, first = self.spec, 0
        if not self.opened:
            where, first = self.opening([e.token for e in history])
            if where != "thinking":
                return View(SOLUTION if where == "solution" else OPENING, 0, len(history) - first, 0)
        region = history[first:]
        m = len(s.end)
        for k in range(len(region) + 1):
            if k < len(region) and region[k].tag.startswith("closing"):
                begun = int(region[k].tag.split("@")[1])
                thinking = sum(e.source == SAMPLED for e in region[:k]) - begun
                return View(SOLUTION, thinking, sum(e.source == SAMPLED for e in region[k:]), 0)
            window = region[max(0, k - m) : k]
            if all(e.source == SAMPLED for e in window) and fits([e.token for e in window], s.end):
                thinking = sum(e.source == SAMPLED for e in region[: k - m])
                return View(SOLUTION, thinking, len(region) - k, 0)
        begun = max(
            p
            for p in range(m)
            if p <= len(region)
            and all(e.source == SAMPLED for e in region[len(region) - p :])
            and fits([e.token for e in region[len(region) - p :]], s.end[:p])
        )
        return View(THINKING, sum(e.source == SAMPLED for e in region), 0, begun)

    def finish(self, history: list[Entry]) -> int:
        s, v = self.spec, self.view(history)
        if self.unfinished_text(history):
            return RUNNING
        last = history[-1] if history else None
        if last and last.source == SAMPLED and last.token in s.eos:
            return STOP
        if v.phase == SOLUTION:
            return self.solution_spent(v)
        if v.phase == THINKING and s.total is not None and v.thinking >= s.total:
            return TOTAL_BUDGET
        return RUNNING

    def solution_spent(self, v: View) -> int:
        s = self.spec
        if s.solution is not None and v.solution >= s.solution:
            return SOLUTION_BUDGET
        return TOTAL_BUDGET if s.total is not None and v.thinking + v.solution >= s.total else RUNNING

    def texts(self, tag: str) -> list[int]:
        s = self.spec
        if tag.startswith("closing"):
            begun = int(tag.split("@")[1])
            return s.closing[s.marker_at + begun :] if begun else s.closing
        if tag.startswith("extension"):
            return s.extension
        return s.notices[int(tag.split("#")[1])][1]

    def unfinished_text(self, history: list[Entry]) -> str:
        tag = history[-1].tag if history else ""
        done = sum(e.tag == tag for e in history)
        return tag if tag and done < len(self.texts(tag)) else ""

    def due(self, history: list[Entry]) -> str:
        """The forced text that has to begin now, whatever is sampled."""
        s, v = self.spec, self.view(history)
        if v.phase != THINKING:
            return ""
        sampled = [e.token for e in history if e.source == SAMPLED and e.phase == THINKING]
        if s.thinking is not None and v.thinking >= s.thinking:
            over = v.thinking - s.thinking
            if s.thinking == 0 or over >= s.grace or sampled[-1] in s.boundary:
                return f"closing@{v.begun}"
            return ""
        seen = len({e.tag for e in history if e.tag.startswith("notice")})
        if seen < len(s.notices) and v.thinking >= s.notices[seen][0] and v.begun == 0:
            return f"notice#{seen}"
        return ""

    # ---- the next token ----

    def forced_entry(self, history: list[Entry], tag: str) -> Entry:
        position = sum(e.tag == tag for e in history)
        text = self.texts(tag)
        if tag.startswith("closing"):
            tail = len(self.spec.closing) - self.spec.marker_at - len(self.spec.end)
            phase = SOLUTION if position >= len(text) - tail else CLOSING
        else:
            phase = NOTICE
        return Entry(text[position], FORCED, phase, tag)

    def emit(self, history: list[Entry], sampled: int) -> Entry:
        s = self.spec
        if self.finish(history) != RUNNING:
            return Entry(s.pad, PAD, DONE, "")
        tag = self.unfinished_text(history) or self.due(history)
        if tag:
            return self.forced_entry(history, tag)
        v = self.view(history)
        if v.phase != THINKING:
            after = self.view([*history, Entry(sampled, SAMPLED, OPENING, "")]).phase
            if v.phase == OPENING and after == SOLUTION and self.solution_spent(v):
                # The budget is gone on half a start marker: only the rest of the marker is free.
                tokens = [e.token for e in history]
                begun = max(
                    p for p in range(len(s.start)) if fits(tokens[len(tokens) - p :], s.start[:p]) or p == 0
                )
                return Entry(s.start_ids[begun], FORCED, OPENING, "")
            return Entry(sampled, SAMPLED, SOLUTION if after == SOLUTION else OPENING, "")
        entry = Entry(sampled, SAMPLED, THINKING, "")
        ends = self.view([*history, entry]).phase == SOLUTION
        if ends or sampled in s.eos:
            seen = len({e.tag for e in history if e.tag.startswith("extension")})
            if v.thinking - v.begun < s.min_thinking and seen < s.max_extensions:
                return self.forced_entry(history, f"extension#{seen}")
        if sampled in s.eos and not s.eos_stops:
            return self.forced_entry(history, f"closing@{v.begun}")
        return entry

    def forced_next(self, history: list[Entry]) -> int:
        """The id that comes next whatever is sampled, or -1."""
        if self.finish(history) != RUNNING:
            return self.spec.pad
        tag = self.unfinished_text(history) or self.due(history)
        return self.forced_entry(history, tag).token if tag else -1

    def masked(self, history: list[Entry]) -> set[int]:
        """Tokens that on_reopen="forbid" takes away now."""
        s = self.spec
        if not s.forbid or self.forced_next(history) >= 0 or self.view(history).phase != SOLUTION:
            return set()
        text = [e.token for e in self.solution_text(history)]
        m = len(s.start)
        tail = text[len(text) - (m - 1) :] if len(text) >= m - 1 else None
        return s.start[-1] if tail is not None and fits(tail, s.start[:-1]) else set()

    def solution_text(self, history: list[Entry]) -> list[Entry]:
        """All tokens behind the end marker; of a row that never thought, all tokens."""
        for k in range(len(history), 0, -1):
            e = history[k - 1]
            if e.phase == CLOSING or (e.phase == THINKING and self.view(history[:k]).phase == SOLUTION):
                return history[k:]
        return history

    def run(self, stream: list[int]) -> list[Entry]:
        history: list[Entry] = []
        for token in stream:
            entry = self.emit(history, token)
            if entry.source == PAD:
                break
            history.append(entry)
        return history
