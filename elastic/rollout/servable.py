"""Which models the slot cache can hold the state of."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import get_layer_types_and_kwargs

_SERVED = {"full_attention", "sliding_attention"}


def check_servable(model: Any) -> None:
    """Refuses models whose state is not one key and one value a token and layer.

    A layer with a sliding window keeps all its columns, as one with full attention does.

    Raises:
        ValueError: naming what the slot cache cannot hold.
    """
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
