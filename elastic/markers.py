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
from elastic.pattern import LONGEST_MARKER, Pattern
from elastic.token_text import decode, encode, encode_checked, is_blank, same_text, token_texts

# What stands before and behind a marker in real traces: nothing, a word, the end of a sentence, line breaks.
BEFORE = ("", "x", "x ", "x.", "\n", "x\n", "x.\n", "\n\n", "x.\n\n")
BEHIND = ("", "x", " x", ".", "\n", "\n\n", "\nx", "\n\nx")


@dataclass(frozen=True)
class Markers:
    """Token ids of the start and the end marker, one or more each.

    Attributes:
        start: ids of the start marker.
        end: ids of the end marker.
        start_text: its text; "" if unknown.
        end_text: its text; "" if unknown.
        tokenizer: where the ids come from, if they do: compiles texts of budgets. No part of equality.
        start_merged: further ids for the first and for the last place of the start marker (`Pattern`).
        end_merged: the same for the end marker.
        text_before_start: those of `start_merged[0]` that hold other text than white space.

    Raises:
        ValueError: a marker is empty or longer than 24 tokens, or one contains the other.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    start_text: str = ""
    end_text: str = ""
    tokenizer: Any = field(default=None, compare=False, repr=False)
    start_merged: tuple[frozenset[int], frozenset[int]] = field(
        default=(frozenset(), frozenset()), kw_only=True, repr=False
    )
    end_merged: tuple[frozenset[int], frozenset[int]] = field(
        default=(frozenset(), frozenset()), kw_only=True, repr=False
    )
    text_before_start: frozenset[int] = field(default=frozenset(), kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            ids = tuple(int(i) for i in getattr(self, name))
            if not 1 <= len(ids) <= LONGEST_MARKER or min(ids) < 0:
                raise ValueError(f"{name}: expected 1 to {LONGEST_MARKER} token ids, got {list(ids)}")
            object.__setattr__(self, name, ids)
        for name, ids, other in (
            ("start", self.start, self.end_pattern),
            ("end", self.end, self.start_pattern),
        ):
            if other.ends(ids):
                raise ValueError(
                    f"{name}: the ids {list(ids)} contain the other marker's {list(other.ids)}; "
                    "the two could not be told apart"
                )

    @cached_property
    def start_pattern(self) -> Pattern:
        """Finds the start marker among token ids."""
        return Pattern(self.start, *self.start_merged)

    @cached_property
    def end_pattern(self) -> Pattern:
        """Finds the end marker among token ids."""
        return Pattern(self.end, *self.end_merged)

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
        patterns = [_pattern(tokenizer, text, name) for text, name in ((start, "start"), (end, "end"))]
        texts = token_texts(tokenizer)
        piece = texts[patterns[0].ids[0]] if len(patterns[0].ids) > 1 else start
        with_text = {i for i in patterns[0].first if texts[i][: texts[i].rindex(piece)].strip()}
        return cls(
            patterns[0].ids,
            patterns[1].ids,
            start,
            end,
            tokenizer,
            start_merged=(patterns[0].first, patterns[0].last),
            end_merged=(patterns[1].first, patterns[1].last),
            text_before_start=frozenset(with_text),
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
            if self.start_pattern.is_tail_of(ids):
                return Phase.THINKING
            if self.end_pattern.is_tail_of(ids):
                return Phase.SOLUTION
            if self.tokenizer is None or not is_blank(self.tokenizer, ids.pop()):
                break
        return Phase.OPENING


def _pattern(tokenizer: Any, text: str, name: str) -> Pattern:
    if not text or text.isspace():
        raise ValueError(f"{name}: expected a marker's text, got {text!r}")
    ids = encode_checked(tokenizer, text, name)
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is not None and eos in ids:
        raise ValueError(f"{name}: {text!r} holds the EOS token {eos}, which would end the row")
    pattern = Pattern(tuple(ids), *_merged(tokenizer, ids, text))
    for before in BEFORE:
        for behind in BEHIND:
            _check_in_context(tokenizer, pattern, text, name, before, behind)
    return pattern


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
            f"{name}: {text!r} is {list(pattern.ids)} alone, but {context!r} encodes to {ids}, where it "
            "would not be recognised; add it to the tokenizer as a special token, or use a marker that is one"
        )
