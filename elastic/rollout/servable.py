"""Which models the slot cache can hold the state of."""

from __future__ import annotations

import inspect
from typing import Any

from transformers.cache_utils import get_layer_types_and_kwargs

from elastic.models.adapter import base_of
from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT

_NEEDED_ARGUMENTS = ("attention_mask", "position_ids", CACHE_ARGUMENT, "logits_to_keep")
_SERVED = {"full_attention", "sliding_attention"}


def check_servable(model: Any) -> None:
    """Refuses models whose state is not one key and one value per token and layer.

    A layer with a sliding window keeps all its columns, as one with full attention does.

    Raises:
        TypeError: no causal language model.
        ValueError: naming what the slot cache cannot hold, or an argument that the model's forward lacks.
    """
    if not hasattr(model, "config") or not callable(getattr(model, "forward", None)):
        raise TypeError(f"model: expected a Hugging Face causal language model, got {type(model).__name__}")
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"model: {config.model_type} is an encoder-decoder model; rollouts need a causal one"
        )
    if getattr(model, "_is_stateful", False):
        raise ValueError(
            f"model: {config.model_type} keeps a recurrent state; the slot cache holds keys and values"
        )
    kinds, _ = get_layer_types_and_kwargs(config)
    other = sorted(set(kinds) - _SERVED)
    if other:
        raise ValueError(
            f"model: {config.model_type} has {', '.join(other)} layers; "
            "the slot cache serves full_attention and sliding_attention layers only"
        )
    base = base_of(model)
    missing = [a for a in _NEEDED_ARGUMENTS if a not in inspect.signature(base.forward).parameters]
    if missing:
        raise ValueError(f"model: {type(base).__name__}.forward takes no {', '.join(missing)}")
