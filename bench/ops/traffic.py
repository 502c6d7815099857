"""The least that decode steps read: every weight once per step, and the keys and values that are there."""

from collections.abc import Sequence
from typing import Any


def weight_bytes(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def token_bytes(model: Any) -> int:
    """Keys and values of one token, in the model's dtype."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize


def step_bytes(model: Any, rows: int, columns: int) -> int:
    """Of a step of rows that all stand at one position."""
    return weight_bytes(model) + rows * columns * token_bytes(model)


def call_bytes(model: Any, rows: int, prompts: Sequence[int], lengths: Sequence[int]) -> int:
    """Of a whole call with as few steps as `rows` rows at a time allow, the prompts' own forward aside.

    Args:
        prompts, lengths: tokens of each request's prompt and completion.
    """
    steps = max(max(lengths), -(-sum(lengths) // rows))
    columns = sum(n * prompt + n * (n - 1) // 2 for prompt, n in zip(prompts, lengths, strict=True))
    return steps * weight_bytes(model) + columns * token_bytes(model)
