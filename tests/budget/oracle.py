"""A slow, obvious model of the budget rules, written from the specification and sharing nothing with the
code.

It keeps no counters and no automaton. Before each token it reads the whole history again: it searches for
markers by comparing slices, counts sampled tokens by counting, knows how far a forced text has come by
looking at the tokens that carry its tag, and joins the bytes of tokens to see whether a character is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SAMPLED, FORCED, PAD = range(3)
OPENING, THINKING, CLOSING, NOTICE, SOLUTION, DONE = range(6)
RUNNING, STOP, SOLUTION_BUDGET, TOTAL_BUDGET = range(4)
OPENING_WHITESPACE = 32
MOST_WAITS = 3


class Entry(NamedTuple):
    token: int
    source: int
    phase: int
    tag: str  # which forced text the token belongs to; "wait" of one sampled while a cut waited; else ""


class Way(NamedTuple):
    """One way to write a marker: its ids, and for each place all tokens that can stand there."""

    ids: list[int]
    places: list[set[int]]


@dataclass
class End:
    """One way to write a natural end."""

    way: Way
    opens: bool = False
    rest: list[int] = field(default_factory=list)  # what is forced of it, up to where F goes on; [] for never


@dataclass
class Spec:
    """A budget as ids. `closing` is F, `tail` where it goes on behind its end marker."""

    starts: list[Way]
    ends: list[End]
    closing: list[int]
    tail: int
    thinking: int | None
    solution: int | None
    total: int | None = None
    eos: set[int] = field(default_factory=set)
    blank: set[int] = field(default_factory=set)
    text_before_start: set[int] = field(default_factory=set)
    eos_stops: bool = False
    forbid_reopen: bool = False
    forbid_reclose: bool = False
    whole_characters: bool = False
    min_thinking: int = 0
    extension: list[int] = field(default_factory=list)
    max_extensions: int = 0
    notices: list[tuple[int, list[int]]] = field(default_factory=list)
    grace: int = 0
    boundary: set[int] = field(default_factory=set)
    bytes_of: dict[int, bytes] = field(default_factory=dict)
    pad: int = 0


class View(NamedTuple):
    """What the history amounts to."""

    phase: int  # OPENING, THINKING or SOLUTION, forced texts aside
    thinking: int  # thinking tokens that count, those of before the row included
    solution: int
    begun: int = 0  # tokens of a natural end in progress, while THINKING
    rest: str = "closing"  # the tag of what a cut would force


def fits(tokens: list[int], places: list[set[int]]) -> bool:
    return len(tokens) == len(places) and all(t in p for t, p in zip(tokens, places, strict=True))


class Oracle:
    """One row: its budget, where it starts, the tokens already thought, and how many tokens it had emitted
    when thinking was ended from outside."""

    def __init__(self, spec: Spec, start: int, used: int = 0, ended_at: int | None = None) -> None:
        self.spec, self.start, self.ended_at = spec, start, ended_at
        self.views: dict[tuple[Entry, ...], View] = {}
        most = used if spec.thinking is None else spec.thinking + (spec.grace if spec.thinking else 0)
        self.used = min(used, most, used if spec.total is None else spec.total)

    # ---- reading the history ----

    def opening(self, tokens: list[int]) -> tuple[str, int]:
        """("thinking", its first position), or ("solution" or "opening", first position that counts)."""
        s = self.spec
        ways = [[w.places[0] - s.text_before_start, *w.places[1:]] for w in s.starts]
        for k in range(1, len(tokens) + 1):
            # white space, then a start marker or its beginning: try every place where a marker may begin
            splits = [
                (j, k - j == len(places))
                for j in range(min(k, OPENING_WHITESPACE) + 1)
                for places in ways
                if set(tokens[:j]) <= s.blank and fits(tokens[j:k], places[: k - j])
            ]
            if any(complete for _, complete in splits):
                return "thinking", k
            first_text = next((i for i in range(k) if tokens[i] not in s.blank), k)
            if not splits:
                return "solution", min(first_text, k - 1)
        return "opening", next((i for i, t in enumerate(tokens) if t not in s.blank), len(tokens))

    def view(self, history: list[Entry]) -> View:
        key = tuple(history)
        if key not in self.views:
            self.views[key] = self.viewed(history)
        return self.views[key]

    def viewed(self, history: list[Entry]) -> View:
        first = 0
        if self.start == SOLUTION:
            return View(SOLUTION, self.used, len(history))
        if self.start == OPENING:
            where, first = self.opening([e.token for e in history])
            if where != "thinking":
                return View(SOLUTION if where == "solution" else OPENING, 0, len(history) - first)
        region = history[first:]
        for k in range(len(region) + 1):
            before = self.used + sum(e.source == SAMPLED for e in region[:k])
            if k < len(region) and region[k].tag.startswith("closing"):
                _, begun = self.closing_of(region[k].tag)
                return View(SOLUTION, before - begun, sum(e.source == SAMPLED for e in region[k:]))
            complete = [end for end in self.spec.ends if self.reached(region[:k], end, len(end.way.places))]
            if complete:
                end = max(complete, key=lambda e: len(e.way.places))
                m = len(end.way.places)
                return View(SOLUTION, before - m, len(region) - k + (m if end.opens else 0))
        thinking = self.used + sum(e.source == SAMPLED for e in region)
        begun = [self.begun(region, end) for end in self.spec.ends]
        forced = [n if end.rest else 0 for n, end in zip(begun, self.spec.ends, strict=True)]
        most = max(forced)
        rest = f"closing@{forced.index(most)}:{most}" if most else "closing"
        return View(THINKING, thinking, 0, max(begun), rest)

    def reached(self, region: list[Entry], end: End, count: int) -> bool:
        """Whether a thought ends in the first `count` tokens of a natural end."""
        window = region[max(0, len(region) - count) :]
        sampled = all(e.source == SAMPLED for e in window)
        return sampled and fits([e.token for e in window], end.way.places[:count])

    def begun(self, region: list[Entry], end: End) -> int:
        return max(p for p in range(len(end.way.places)) if p <= len(region) and self.reached(region, end, p))

    def bytes_missing(self, history: list[Entry]) -> bool:
        """Whether the text ends inside a character. Behind a forced token it does not."""
        if not self.spec.whole_characters:
            return False
        text = b""
        for e in reversed(history):
            if e.source == FORCED:
                break
            text = self.spec.bytes_of.get(e.token, b"x") + text
        for back in (1, 2, 3):
            if back > len(text) or text[-back] < 0x80:
                return False
            if text[-back] >= 0xC0:
                return back < (2 if text[-back] < 0xE0 else 3 if text[-back] < 0xF0 else 4)
        return False

    def may_wait(self, history: list[Entry]) -> bool:
        return self.bytes_missing(history) and sum(e.tag == "wait" for e in history) < MOST_WAITS

    def finish(self, history: list[Entry]) -> int:
        v = self.view(history)
        if self.unfinished_text(history):
            return RUNNING
        last = history[-1] if history else None
        if last and last.source == SAMPLED and last.token in self.spec.eos:
            return STOP
        reason = self.hard_cut(history)
        if reason and v.phase != OPENING and not self.may_wait(history):
            return reason
        return RUNNING

    def hard_cut(self, history: list[Entry]) -> int:
        """The reason to end the row here, were it not for a character in progress."""
        s, v = self.spec, self.view(history)
        if v.phase == SOLUTION and (v.solution > 0 or not history):
            return self.solution_spent(v)
        spent = s.thinking is None and s.total is not None and v.thinking >= s.total
        return TOTAL_BUDGET if v.phase == THINKING and spent else RUNNING

    def solution_spent(self, v: View) -> int:
        s = self.spec
        if s.solution is not None and v.solution >= s.solution:
            return SOLUTION_BUDGET
        return TOTAL_BUDGET if s.total is not None and v.thinking + v.solution >= s.total else RUNNING

    def closing_of(self, tag: str) -> tuple[int, int]:
        """Which end a closing completes, -1 for none, and how many tokens of it were there."""
        index, begun = tag.split("@")[1].split(":") if "@" in tag else ("-1", "0")
        return int(index), int(begun)

    def texts(self, tag: str) -> list[int]:
        s = self.spec
        if tag.startswith("closing"):
            index, begun = self.closing_of(tag)
            return s.closing if index < 0 else s.ends[index].rest[begun:] + s.closing[s.tail :]
        if tag.startswith("extension"):
            return s.extension
        return s.notices[int(tag.split("#")[1])][1]

    def unfinished_text(self, history: list[Entry]) -> str:
        tag = history[-1].tag if history else ""
        if tag in ("", "wait"):
            return ""
        done = sum(e.tag == tag for e in history)
        return tag if done < len(self.texts(tag)) else ""

    def notice_due(self, history: list[Entry]) -> str:
        s, v = self.spec, self.view(history)
        if s.thinking is not None and v.thinking >= s.thinking:
            return ""
        past = sum(at < self.used for at, _ in s.notices)
        seen = past + len({e.tag for e in history if e.tag.startswith("notice")})
        due = seen < len(s.notices) and v.thinking >= s.notices[seen][0] and v.begun == 0
        return f"notice#{seen}" if due else ""

    def closing_due(self, history: list[Entry]) -> bool:
        """Whether thinking is to be cut here, were it not for a character in progress."""
        s, v = self.spec, self.view(history)
        if v.phase != THINKING or self.hard_cut(history):
            return False
        if self.ended_at is not None and len(history) >= self.ended_at:
            # A notice that was about to begin is forced first.
            return len(history) > self.ended_at or not self.notice_due(history)
        if s.thinking is None or v.thinking < s.thinking:
            return False
        thought = [e for e in history if e.source == SAMPLED and e.phase == THINKING]
        over = v.thinking - s.thinking
        waiting = bool(thought) and thought[-1].tag == "wait"
        return not thought or over >= s.grace or thought[-1].token in s.boundary or waiting

    def due(self, history: list[Entry]) -> str:
        """The forced text that has to begin now, whatever is sampled."""
        v = self.view(history)
        if v.phase != THINKING:
            return ""
        if self.closing_due(history):
            return "" if self.may_wait(history) else v.rest
        return "" if self.hard_cut(history) else self.notice_due(history)

    # ---- the next token ----

    def forced_entry(self, history: list[Entry], tag: str) -> Entry:
        position = sum(e.tag == tag for e in history)
        text = self.texts(tag)
        if tag.startswith("closing"):
            behind = len(self.spec.closing) - self.spec.tail
            phase = SOLUTION if position >= len(text) - behind else CLOSING
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
        cut_waits = v.phase != OPENING and bool(self.closing_due(history) or self.hard_cut(history))
        wait = "wait" if cut_waits else ""
        if v.phase != THINKING:
            after = self.view([*history, Entry(sampled, SAMPLED, OPENING, "")]).phase
            if v.phase == OPENING and after == SOLUTION and self.solution_spent(v):
                # The budget is gone on half a start marker: only the rest of the marker is free.
                tokens = [e.token for e in history]
                way, begun = max(((w, self.started(tokens, w)) for w in s.starts), key=lambda pair: pair[1])
                return Entry(way.ids[begun], FORCED, OPENING, "")
            return Entry(sampled, SAMPLED, SOLUTION if after == SOLUTION else OPENING, wait)
        entry = Entry(sampled, SAMPLED, THINKING, wait)
        after = self.view([*history, entry])
        ends = after.phase == SOLUTION
        if (ends or sampled in s.eos) and not cut_waits:
            seen = len({e.tag for e in history if e.tag.startswith("extension")})
            if v.thinking - v.begun < s.min_thinking and seen < s.max_extensions:
                return self.forced_entry(history, f"extension#{seen}")
        if sampled in s.eos and not s.eos_stops:
            return self.forced_entry(history, v.rest)
        return entry._replace(phase=SOLUTION) if ends and after.solution else entry

    def started(self, tokens: list[int], way: Way) -> int:
        counts = range(min(len(way.places), len(tokens) + 1))
        return max(p for p in counts if fits(tokens[len(tokens) - p :], way.places[:p]))

    def forced_next(self, history: list[Entry]) -> int:
        """The id that comes next whatever is sampled, or -1."""
        if self.finish(history) != RUNNING:
            return self.spec.pad
        tag = self.unfinished_text(history) or self.due(history)
        return self.forced_entry(history, tag).token if tag else -1

    def masked(self, history: list[Entry]) -> set[int]:
        """Tokens that on_reopen="forbid" and, behind a cut, on_reclose="forbid" take away now."""
        s = self.spec
        if self.forced_next(history) >= 0 or self.view(history).phase != SOLUTION:
            return set()
        ways = list(s.starts) if s.forbid_reopen else []
        if s.forbid_reclose and any(e.phase == CLOSING for e in history):
            ways += [end.way for end in s.ends if not end.opens]
        text = [e.token for e in self.solution_text(history)]
        taken: set[int] = set()
        for way in ways:
            m = len(way.places) - 1
            if len(text) >= m and fits(text[len(text) - m :], way.places[:m]):
                taken |= way.places[-1]
        return taken

    def solution_text(self, history: list[Entry]) -> list[Entry]:
        """All tokens behind the end marker; of a row that never thought, all tokens."""
        closing = [k for k, e in enumerate(history) if e.phase == CLOSING]
        thought = [k for k, e in enumerate(history) if e.phase in (THINKING, NOTICE)]
        if closing or thought:
            return history[max(closing or thought) + 1 :]
        where, first = self.opening([e.token for e in history]) if self.start == OPENING else ("", 0)
        return history[first:] if where == "thinking" else history

    def run(self, stream: list[int]) -> list[Entry]:
        history: list[Entry] = []
        for token in stream:
            entry = self.emit(history, token)
            if entry.source == PAD:
                break
            history.append(entry)
        return history
