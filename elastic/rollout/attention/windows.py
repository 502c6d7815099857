"""Windows that a model's configuration limits attention to, and a model with its sliding window narrowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SLIDING = "sliding_window"  # the name that transformers makes masks by

_WINDOW = re.compile(r"window(_size|_len)?$|^local_attention$|chunk_size$|block_size$|index_topk$")
_NO_ATTENTION = re.compile(r"feed_forward|lm_head|mamba|conv|ssm")


def declared_windows(config: Any) -> dict[str, int]:
    """Numbers of tokens, by the names they have in a configuration, that attention may be limited to.

    Args:
        config: of the text model. Its `layer_types`, if any, say whether its `sliding_window` counts.
    """
    kinds = getattr(config, "layer_types", None)
    found = {}
    for name, value in config.to_dict().items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            continue
        unused = name == SLIDING and kinds is not None and "sliding_attention" not in kinds
        if _WINDOW.search(name) and not _NO_ATTENTION.search(name) and not unused:
            found[name] = value
    return found


@contextmanager
def narrowed(model: Any, tokens: int) -> Iterator[None]:
    """The model with a sliding window of `tokens`, in its configuration and in the layers that hold one."""
    owners: list[Any] = [model.config.get_text_config(decoder=True), *model.modules()]
    own = [(owner, vars(owner)[SLIDING]) for owner in owners if isinstance(vars(owner).get(SLIDING), int)]
    try:
        for owner, _ in own:
            setattr(owner, SLIDING, tokens)
        yield
    finally:
        for owner, window in own:
            setattr(owner, SLIDING, window)
