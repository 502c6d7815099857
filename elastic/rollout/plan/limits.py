"""What a model can take: context, vocabulary, the tokens that end and pad rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from elastic.budget.eos import EosIds, eos_tuple, pad_of, tokenizer_eos
from elastic.budget.markers import Markers


@dataclass(frozen=True)
class Limits:
    """What the model can take.

    Attributes:
        context: most tokens of prompt and completion together; None where the model sets no limit.
        vocab: logits per token.
        eos_ids: tokens that end a row, ascending; none where rows end at their budgets alone.
        pad_id: what finished rows emit.
    """

    context: int | None
    vocab: int
    eos_ids: tuple[int, ...]
    pad_id: int


def model_limits(
    model: Any, tokenizer: Any, markers: Markers, eos_ids: EosIds, max_length: int | None
) -> Limits:
    """Reads the limits off a model, and checks that tokenizer and markers belong to it.

    Args:
        eos_ids: tokens that end a row, an empty list for none, or None for those of the generation config
            and the tokenizer; where these name none either, a warning says so.
        max_length: the caller's own context limit, or None.

    Raises:
        TypeError, ValueError: naming the argument, its value and the limit.
    """
    config = model.config.get_text_config(decoder=True)
    head = model.get_output_embeddings()
    vocab = config.vocab_size if head is None else head.weight.shape[0]
    if len(tokenizer) > vocab:
        raise ValueError(
            f"tokenizer: has {len(tokenizer)} tokens, the model only {vocab} logits: it is another model's "
            "tokenizer, or the model needs resize_token_embeddings"
        )
    context = getattr(config, "max_position_embeddings", None)
    if max_length is not None:
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 2:
            raise ValueError(f"max_length: expected an integer from 2, got {max_length!r}")
        if context is not None and max_length > context:
            raise ValueError(
                f"max_length: expected at most the model's context of {context}, got {max_length}"
            )
        context = max_length
    _check_positions(config, context)
    ends = _eos_ids(model, tokenizer) if eos_ids is None else eos_tuple(eos_ids)
    pad = pad_of(tokenizer, ends)
    marked = sorted({*markers.start_pattern.places, *markers.ends_pattern.places})
    named = [("eos_ids", ends), ("pad_token_id", (pad,)), ("markers", marked)]
    for name, ids in named:
        outside = [i for i in ids if not 0 <= i < vocab]
        if outside:
            raise ValueError(f"{name}: expected ids 0 .. {vocab - 1}, the model's vocabulary, got {outside}")
    return Limits(context, vocab, ends, pad)


def _check_positions(config: Any, context: int | None) -> None:
    """Refuses positions that depend on the batch's longest row: a row would change with its neighbours."""
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        original = part.get("original_max_position_embeddings")
        if part.get("rope_type") == "longrope" and original and (context is None or context > original):
            raise ValueError(
                f"max_length: {config.model_type} scales positions by the longest row of a batch beyond "
                f"{original} tokens (longrope); expected at most that, got {context}"
            )


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a sequence by the model's generation config, or by the tokenizer."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {own} if isinstance(own, int) else set(own or ())
    ids.update(tokenizer_eos(tokenizer))
    if not ids:
        warnings.warn(
            "eos_ids: neither the model's generation config nor the tokenizer names an EOS token, so rows "
            "end at their budgets alone; give eos_ids, or eos_ids=() if that is meant",
            stacklevel=4,
        )
    return tuple(sorted(ids))
