"""The markers of an engine that is given none: what this vocabulary has of well-known ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from elastic.budget.markers import NAMES, Markers, MarkerWarning
from elastic.budget.token_text import added_tokens

# Of thinking, the first that a vocabulary has as tokens of their own; without any, the first as plain text.
PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("◁think▷", "◁/think▷"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
# What begins a tool call: a model that calls a tool in its thought has ended the thought (R18).
TOOL_CALLS = (
    "<tool_call>",
    "[TOOL_CALLS]",
    "<|tool_call|>",
    "<|tool_calls_section_begin|>",
    "<｜tool▁calls▁begin｜>",
    "<|tool_call_start|>",
    "<|python_tag|>",
    "<|START_ACTION|>",
    "<seed:tool_call>",
    "<minimax:tool_call>",
    "<longcat_tool_call>",
    "<start_function_call>",
)


def choose_markers(
    tokenizer: Any,
    start: str | None = None,
    end: str | None = None,
    ends: Sequence[str] = (),
    *,
    names: tuple[str, str, str] = NAMES,
) -> Markers:
    """The markers that a user gave, the other of the pair as usual; without a pair, the vocabulary's own.

    Args:
        tokenizer: a transformers tokenizer.
        start: what opens thinking, if given.
        end: what closes it, if given.
        ends: more natural ends.
        names: what the three are called where the user gives them.

    Raises:
        ValueError: as `Markers.from_tokenizer`.
    """
    pair = {name: text for name, text in (("start", start), ("end", end)) if text is not None}
    if not pair:
        return default_markers(tokenizer, ends, names=names)
    return Markers.from_tokenizer(tokenizer, **pair, ends=ends, names=names)


def default_markers(
    tokenizer: Any, ends: Sequence[str] = (), *, names: tuple[str, str, str] = NAMES
) -> Markers:
    """`<think>` and `</think>`, or the well-known pair that the vocabulary has as tokens in their place.

    Plain text is the last resort: a model whose vocabulary has a token for another marker writes that one,
    and a budget that waits for `<think>` would never do anything. Tool calls that are tokens of the
    vocabulary are further ends (R18).

    Args:
        tokenizer: a transformers tokenizer.
        ends: more natural ends.
        names: what start, end and ends are called where others could be given, as `Markers.from_tokenizer`
            takes them.

    Raises:
        ValueError: as `Markers.from_tokenizer`.
    """
    added = {str(token) for token in added_tokens(tokenizer).values()}
    start, end = next((pair for pair in PAIRS if added.issuperset(pair)), PAIRS[0])
    if (start, end) != PAIRS[0]:
        remedy = f"give {names[0]} and {names[1]}"
        if names == NAMES:
            remedy = "pass markers=Markers.from_tokenizer(tokenizer, start=..., end=...)"
        warnings.warn(
            f"markers: the vocabulary has no token for <think>, but {start} and {end}: these are taken "
            f"as the thinking markers; for others, {remedy}",
            MarkerWarning,
            stacklevel=3,
        )
    calls = [text for text in TOOL_CALLS if text in added]
    return Markers.from_tokenizer(tokenizer, start, end, [*dict.fromkeys([*calls, *ends])], names=names)
