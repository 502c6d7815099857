"""Thinking markers: the token ids that open and close thinking, and whether a tokenizer can be trusted with
them.

A marker that the model writes with other ids than ours would never be seen, and every budget would silently
be ignored. So `Markers.from_tokenizer` learns from the vocabulary how a marker merges with its neighbours,
tries it in the contexts where models write markers, and refuses one that it would not recognise in each of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from elastic.budget import Phase
from elastic.pattern import END_PLACES, LONGEST_MARKER, START_PLACES, Pattern, Spelling
from elastic.token_text import decode, encode, encode_checked, is_blank, same_text, token_texts

# What stands before and behind a marker in real traces: nothing, a word, the end of a sentence, line breaks.
BEFORE = ("", "x", "x ", "x.", "\n", "x\n", "x.\n", "\n\n", "x.\n\n")
BEHIND = ("", "x", " x", ".", "\n", "\n\n", "\nx", "\n\nx")


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
        start: ids of the start marker, as it is written alone.
        end: ids of the end marker; what is forced.
        start_text: its text; "" if unknown.
        end_text: its text; "" if unknown.
        tokenizer: where the ids come from, if they do: compiles texts of budgets. No part of equality.
        ends: further natural ends (R18). A tuple of ids stands for one that opens something.
        start_spellings: every way the start marker may be written, `start` alone by default.
        end_spellings: the same of the end marker.

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
        for name, pattern, other in (
            ("start", self.start_pattern, self.ends_pattern),
            ("end", self.ends_pattern, self.start_pattern),
        ):
            for spelling in pattern.spellings:
                if other.ends(spelling.ids):
                    raise ValueError(
                        f"{name}: the ids {list(spelling.ids)} contain the other marker's "
                        f"{[list(s.ids) for s in other.spellings]}; the two could not be told apart"
                    )

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
    def from_tokenizer(cls, tokenizer: Any, start: str = "<think>", end: str = "</think>") -> Markers:
        """Finds the ids of both markers and checks that generated text will show exactly those.

        A marker that is one special (added) token has the same id everywhere. A marker of ordinary tokens may
        merge with the text around it (".</", ">\\n\\n"); the tokens that hold its first or last piece so are
        taken as that piece. A merged token counts as a token of the marker. Whatever else happens in context
        (other pieces, the unknown token) makes the marker unusable, and it is refused.

        Args:
            tokenizer: a transformers tokenizer.
            start: text of the start marker.
            end: text of the end marker.

        Raises:
            ValueError: naming the text: it is empty, unknown to the tokenizer, does not read back, is not
                recognised in context, holds the EOS token, or the two cannot be told apart.
        """
        if start == end:
            raise ValueError(f"start and end: expected two different markers, got {start!r} twice")
        spelled = [_spelling(tokenizer, text, name) for text, name in ((start, "start"), (end, "end"))]
        return cls(
            spelled[0].ids,
            spelled[1].ids,
            start,
            end,
            tokenizer,
            start_spellings=(spelled[0],),
            end_spellings=(spelled[1],),
        )

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


def _marker_ids(name: str, given: Sequence[int]) -> tuple[int, ...]:
    ids = tuple(int(i) for i in given)
    if not 1 <= len(ids) <= LONGEST_MARKER or min(ids) < 0:
        raise ValueError(f"{name}: expected 1 to {LONGEST_MARKER} token ids, got {list(ids)}")
    return ids


def _natural_end(end: Any) -> NaturalEnd:
    if isinstance(end, NaturalEnd):
        return end
    return NaturalEnd((Spelling(_marker_ids("ends", end)),))


def _spelling(tokenizer: Any, text: str, name: str) -> Spelling:
    if not text or text.isspace():
        raise ValueError(f"{name}: expected a marker's text, got {text!r}")
    ids = encode_checked(tokenizer, text, name)
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is not None and eos in ids:
        raise ValueError(f"{name}: {text!r} holds the EOS token {eos}, which would end the row")
    first, last = _merged(tokenizer, ids, text)
    texts = token_texts(tokenizer)
    piece = texts[ids[0]] if len(ids) > 1 else text
    with_text = frozenset(i for i in first if texts[i][: texts[i].rindex(piece)].strip())
    spelling = Spelling(tuple(ids), first, last, with_text)
    pattern = Pattern([spelling])
    for before in BEFORE:
        for behind in BEHIND:
            _check_in_context(tokenizer, pattern, text, name, before, behind)
    return spelling


def _merged(tokenizer: Any, ids: list[int], text: str) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that hold the first or the last piece of a marker together with the text around it."""
    texts = token_texts(tokenizer)
    if len(ids) == 1:
        whole = frozenset(i for i, t in enumerate(texts) if text in t and i != ids[0])
        return whole, whole
    head, tail = texts[ids[0]], texts[ids[-1]]
    # A special token never merges, and its text here is empty.
    first = frozenset(i for i, t in enumerate(texts) if head and t.endswith(head) and i != ids[0])
    last = frozenset(i for i, t in enumerate(texts) if tail and t.startswith(tail) and i != ids[-1])
    return first, last


def _check_in_context(
    tokenizer: Any, pattern: Pattern, text: str, name: str, before: str, behind: str
) -> None:
    context = before + text + behind
    ids = encode(tokenizer, context)
    # A vocabulary that cannot write this context says nothing about the marker.
    unknown = getattr(tokenizer, "unk_token_id", None)
    if (unknown is not None and unknown in ids) or not same_text(decode(tokenizer, ids), context):
        return
    if len(pattern.ends(ids)) != 1:
        raise ValueError(
            f"{name}: {text!r} is {list(pattern.spellings[0].ids)} alone, but {context!r} encodes to {ids}, where it "
            "would not be recognised; add it to the tokenizer as a special token, or use a marker that is one"
        )
