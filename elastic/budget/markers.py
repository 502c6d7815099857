"""Thinking markers: the token ids that open and close thinking, found in a tokenizer and checked.

A marker that the model writes with other ids than ours would never be seen, and every budget would silently
be ignored. So `Markers.from_tokenizer` learns from the vocabulary how a marker is written beside other text
(`spelling`), refuses one that it would not recognise, and warns of one that the model hardly uses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from elastic.budget.kinds import Phase
from elastic.budget.marker_text import bare_end, closes, thinking_tokens
from elastic.budget.pattern import END_PLACES, LONGEST_MARKER, START_PLACES, Pattern, Spelling
from elastic.budget.spelling import Learned, fit, learn
from elastic.budget.token_text import added_tokens, is_blank

# Names of start, end and ends in messages; the command line and the trainer pass their own.
NAMES = ("start", "end", "ends")

_WARNED: WeakKeyDictionary[Any, set[tuple[str, ...]]] = WeakKeyDictionary()


class MarkerWarning(UserWarning):
    """The markers are most likely not those of the model: its thinking would have no budget."""


@dataclass(frozen=True)
class NaturalEnd:
    """A further natural end of thinking (R18): it ends thinking, and is never forced.

    Attributes:
        spellings: how the vocabulary writes it.
        text: its text; "" if unknown.
        opens: whether it opens something that belongs to the solution's text and counts there, as a tool call
            does. False for another closing marker, whose tokens count against neither budget.
    """

    spellings: tuple[Spelling, ...]
    text: str = ""
    opens: bool = True


@dataclass(frozen=True)
class Markers:
    """Token ids of the start and the end marker, one or more each.

    Attributes:
        start: ids of the start marker, as it is written alone and without a space in front.
        end: ids of the end marker, likewise; what is forced.
        start_text: its text; "" if unknown.
        end_text: its text; "" if unknown.
        tokenizer: what the ids come from, or None; encodes the texts of budgets. Not compared by `==`.
        ends: further natural ends (R18). A tuple of ids stands for one that opens something.
        start_spellings: every way the start marker may be written, `start` alone by default.
        end_spellings: the same for the end marker.

    Raises:
        ValueError: a marker is empty or longer than 24 tokens, one contains the other, or there are more
            spellings than the machine has places for: 24 tokens of start markers, 28 of ends.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    start_text: str = ""
    end_text: str = ""
    tokenizer: Any = field(default=None, compare=False, repr=False)
    ends: tuple[NaturalEnd, ...] = field(default=(), kw_only=True)
    start_spellings: tuple[Spelling, ...] = field(default=(), kw_only=True, repr=False)
    end_spellings: tuple[Spelling, ...] = field(default=(), kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            ids = _marker_ids(name, getattr(self, name))
            object.__setattr__(self, name, ids)
            spellings = getattr(self, f"{name}_spellings") or (Spelling(ids),)
            object.__setattr__(self, f"{name}_spellings", tuple(spellings))
        object.__setattr__(self, "ends", tuple(_natural_end(end) for end in self.ends))
        for name, pattern, most in (
            ("start", self.start_pattern, START_PLACES),
            ("end and ends", self.ends_pattern, END_PLACES),
        ):
            if pattern.size > most:
                raise ValueError(
                    f"{name}: expected at most {most} tokens in all spellings, got {pattern.size}: "
                    f"{[list(s.ids) for s in pattern.spellings]}"
                )
        _check_told_apart(self.start_spellings, self.end_spellings, self.ends, NAMES)

    @cached_property
    def start_pattern(self) -> Pattern:
        """Finds the start marker among token ids."""
        return Pattern(self.start_spellings)

    @cached_property
    def end_pattern(self) -> Pattern:
        """Finds the end marker, and no other natural end."""
        return Pattern(self.end_spellings)

    @cached_property
    def ends_pattern(self) -> Pattern:
        """Finds every natural end: the end marker's spellings first, then those of `ends` in their order."""
        return Pattern([*self.end_spellings, *(s for end in self.ends for s in end.spellings)])

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        start: str = "<think>",
        end: str = "</think>",
        ends: Sequence[str | NaturalEnd] = (),
        *,
        names: tuple[str, str, str] = NAMES,
    ) -> Markers:
        """Finds the ids of the markers and checks that generated text will show exactly those.

        A marker that is one special (added) token has the same id everywhere. A marker of ordinary tokens may
        merge with the text around it (" <", ">\\n\\n") and read in other pieces there: every way in which the
        vocabulary writes it is learned. A merged token counts as a token of the marker.

        Args:
            tokenizer: a transformers tokenizer.
            start: text of the start marker.
            end: text of the end marker, which is forced. Where a closing tag is only a part of it, beside a
                phrase or line breaks, the tag alone is a natural end too.
            ends: texts of further natural ends (R18). A closing tag ("</...>", "[/...]", "<|end...|>")
                closes, any other text opens something that belongs to the solution, as "<tool_call>" does;
                give a `NaturalEnd` to say otherwise.
            names: what messages call start, end and ends; the command line passes
                ("--start-marker", "--end-marker", "--end").

        Raises:
            ValueError: naming the text: it is empty, unknown to the tokenizer, does not read back, is not
                recognised in context, holds the EOS token, is written in more tokens than the machine has
                places for, or cannot be told from another marker.

        Warns:
            MarkerWarning: a marker is several ordinary tokens, and the tokenizer has special ones that look
                like thinking markers. Once for a tokenizer and these markers.
        """
        if isinstance(ends, str):
            raise ValueError(f"{names[2]}: expected a sequence of texts, got {ends!r}; give [{ends!r}]")
        if start == end:
            raise ValueError(
                f"{names[0]} and {names[1]}: expected two different markers, got {start!r} twice"
            )
        remedy = "give the model's own markers with " + (
            "Markers.from_tokenizer(tokenizer, start=..., end=...)"
            if names == NAMES
            else f"{names[0]} and {names[1]}"
        )
        try:
            opened, closed = learn(tokenizer, start, names[0]), learn(tokenizer, end, names[1])
            further = _further_ends(tokenizer, end, ends, names)
            learned = [opened, closed, *(of for of, _ in further)]
            if further and bare_end(end) == further[0][0].text:
                learned[1] = closed.alone()
            starts, (own, *others) = fit(learned[:1], START_PLACES)[0], fit(learned[1:], END_PLACES)
            natural = tuple(
                NaturalEnd(spellings, of.text, opens)
                for (of, opens), spellings in zip(further, others, strict=True)
            )
            _check_told_apart(starts, own, natural, names)
            markers = cls(
                opened.ids,
                closed.ids,
                start,
                end,
                tokenizer,
                ends=natural,
                start_spellings=starts,
                end_spellings=own,
            )
        except ValueError as error:
            raise ValueError(f"{error}; {remedy}") from None
        _warn_of_others(tokenizer, (opened, closed), names, remedy)
        return markers

    def initial_phase(self, prompt_ids: Sequence[int]) -> Phase:
        """The phase in which a completion of this prompt begins (R9).

        Only the end of the prompt counts, which is the assistant's opened turn: a marker that a user typed is
        followed by the rest of the template, a marker that the template opened by white space at most. A
        closed (empty) block gives SOLUTION.

        Args:
            prompt_ids: all ids of the prompt, template included.

        Returns:
            THINKING, SOLUTION or OPENING. White space is only known where the markers came from a tokenizer.
        """
        ids = [int(i) for i in prompt_ids]
        while ids:
            if self.start_pattern.tail(ids):
                return Phase.THINKING
            if self.ends_pattern.tail(ids):
                return Phase.SOLUTION
            if self.tokenizer is None or not is_blank(self.tokenizer, ids.pop()):
                break
        return Phase.OPENING

    def opened_before(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a prompt may end inside a thought (R19): text follows its last start marker, but no end.

        A special token behind the marker begins another turn, so a marker that a user typed says nothing.
        `initial_phase` is OPENING for such a prompt.

        Args:
            prompt_ids: all ids of the prompt, template included.
        """
        ids = [int(i) for i in prompt_ids]
        begun = self.start_pattern.ends(ids)
        if not begun or self.initial_phase(ids) != Phase.OPENING:
            return False
        behind = ids[begun[-1] + 1 :]
        ended = any(position > begun[-1] for position in self.ends_pattern.ends(ids))
        return not ended and not _special_ids(self.tokenizer) & set(behind)


def _special_ids(tokenizer: Any) -> set[int]:
    if tokenizer is None:
        return set()
    return {*tokenizer.all_special_ids, *(i for i, t in added_tokens(tokenizer).items() if t.special)}


def _check_told_apart(
    starts: Sequence[Spelling],
    own: Sequence[Spelling],
    ends: Sequence[NaturalEnd],
    names: tuple[str, str, str],
) -> None:
    """No spelling of a start marker holds one of an end, nor the other way round."""
    further = [spelling for end in ends for spelling in end.spellings]
    opening, ending = Pattern(starts), Pattern([*own, *further])
    for name, spellings, other in zip(names, (starts, own, further), (ending, opening, opening), strict=True):
        for spelling in spellings:
            if other.ends(spelling.ids):
                raise ValueError(
                    f"{name}: the ids {list(spelling.ids)} contain the other marker's "
                    f"{[list(s.ids) for s in other.spellings]}; the two could not be told apart"
                )


def _marker_ids(name: str, given: Sequence[int]) -> tuple[int, ...]:
    ids = tuple(int(i) for i in given)
    if not 1 <= len(ids) <= LONGEST_MARKER or min(ids) < 0:
        raise ValueError(f"{name}: expected 1 to {LONGEST_MARKER} token ids, got {list(ids)}")
    return ids


def _natural_end(end: Any) -> NaturalEnd:
    if isinstance(end, NaturalEnd):
        return end
    return NaturalEnd((Spelling(_marker_ids("ends", end)),))


def _further_ends(
    tokenizer: Any, end: str, ends: Sequence[Any], names: tuple[str, str, str]
) -> list[tuple[Learned, bool]]:
    """The natural ends beside `end`, and whether each opens something; a bare end comes first."""
    found: list[tuple[Learned, bool]] = []
    bare = bare_end(end)
    if bare is not None:
        found.append((learn(tokenizer, bare, names[1]), False))
    for given in ends:
        if isinstance(given, str):
            learned, opens = learn(tokenizer, given, names[2]), not closes(given)
        else:
            natural = _natural_end(given)
            learned, opens = Learned(names[2], natural.text, natural.spellings), natural.opens
        if given == end or learned.ids in [of.ids for of, _ in found if of.text != bare]:
            raise ValueError(f"{names[2]}: {learned.text or list(learned.ids)!r} is an end already")
        if learned.text != bare:
            found.append((learned, opens))
    return found


def _warn_of_others(
    tokenizer: Any, markers: Sequence[Learned], names: tuple[str, str, str], remedy: str
) -> None:
    texts = tuple(marker.text for marker in markers)
    pieces = [marker for marker in markers if len(marker.ids) > 1]
    seen = [token for token in thinking_tokens(tokenizer) if not any(token in text for text in texts)]
    if not pieces or not seen or texts in _WARNED.setdefault(tokenizer, set()):
        return
    _WARNED[tokenizer].add(texts)
    several = len(pieces) > 1
    warnings.warn(
        f"{' and '.join(marker.name for marker in pieces)}: {' and '.join(repr(m.text) for m in pieces)} "
        f"{'are' if several else 'is'} ordinary text to this tokenizer, which has the special tokens "
        f"{', '.join(seen)}; a model that thinks between those would have no thinking budget; {remedy}",
        MarkerWarning,
        stacklevel=3,
    )
