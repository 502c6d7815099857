"""The markers of an engine that is given none: what this vocabulary has of well-known ones."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from elastic.markers import Markers, NaturalEnd
from elastic.pattern import Spelling

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


def default_markers(tokenizer: Any) -> Markers:
    """`<think>` and `</think>`, or the well-known pair that the vocabulary has as tokens in their place.

    Plain text is the last resort: a model whose vocabulary has a token for another marker writes that one,
    and a budget that waits for `<think>` would never do anything. Tool calls that are tokens of the
    vocabulary are further ends (R18).

    Args:
        tokenizer: a transformers tokenizer.

    Raises:
        ValueError: as `Markers.from_tokenizer`.
    """
    added = {str(token): i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    start, end = next((pair for pair in PAIRS if added.keys() >= set(pair)), PAIRS[0])
    if (start, end) != PAIRS[0]:
        warnings.warn(
            f"markers: the vocabulary has no token for <think>, but {start} and {end}: these are taken "
            "as the thinking markers. For others, pass "
            "markers=Markers.from_tokenizer(tokenizer, start=..., end=...)",
            stacklevel=3,
        )
    markers = Markers.from_tokenizer(tokenizer, start, end)
    calls = [NaturalEnd((Spelling((added[text],)),), text) for text in TOOL_CALLS if text in added]
    return replace(markers, ends=(*markers.ends, *calls))
