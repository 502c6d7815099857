"""A model lent to one caller at a time: its modules' modes and its attention, both given back as they were.

A forward call of a rollout or of an update needs the model in another state than its owner keeps it in, and
the state is the model's own: two threads that changed it at the same time would decode under each other's
attention and leave it behind. So whoever changes it holds the model's lock; others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from elastic.models.adapter import base_of

# What an additive mask is understood by; under any other implementation SDPA takes its place.
_MASKED_ATTENTIONS = ("sdpa", "eager")
_FLASH = "flash_attention_"

_LOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@contextmanager
def exclusive(model: Any) -> Iterator[None]:
    """Waits until no other thread uses the model, then keeps others waiting.

    The same thread may enter again, say from a callback. An adapter and the model inside it are one.
    """
    with _LOCKS_GUARD:
        lock = _LOCKS.setdefault(base_of(model), threading.RLock())
    with lock:
        yield


@contextmanager
def lent(model: Any) -> Iterator[None]:
    """The model for this thread alone: eval mode, the attention of prompts."""
    with exclusive(model), evaluating(model), attention_set(model, prompt_implementation(model)):
        yield


def prompt_implementation(model: Any) -> str:
    """The model's own attention where that is flash-attn on a GPU; else one that takes masks."""
    own = str(model.config.get_text_config(decoder=True)._attn_implementation)
    on_gpu = next(model.parameters()).device.type == "cuda"
    return own if own.startswith(_FLASH) and on_gpu else masked_implementation(model)


def masked_implementation(model: Any) -> str:
    """The model's own attention where that takes an additive mask, else one of it that does."""
    own = model.config.get_text_config(decoder=True)._attn_implementation
    if own in _MASKED_ATTENTIONS:
        return own
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


@contextmanager
def serving(model: Any) -> Iterator[None]:
    """The model as `lent`, and no gradients."""
    # Over no_grad, inference_mode saves a tenth of a tiny model's step.
    with lent(model), torch.inference_mode():
        yield


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Every module in eval mode."""
    was_training = model.training
    with modes_kept(model):
        model.eval()
        try:
            yield
        finally:
            if was_training:
                model.train()  # for modules whose train() does more than set the flag


@contextmanager
def modes_kept(model: Any) -> Iterator[None]:
    """Afterwards every module has its own mode again, not the model's: some may have been frozen."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def attention_set(model: Any, implementation: str) -> Iterator[None]:
    """The language model under another attention implementation.

    Afterwards each part of the configuration has its own again: setting one at the top writes through to the
    parts, which may differ (an image encoder, say). The attribute alone is set, because
    `set_attn_implementation` would load kernels again.
    """
    config = model.config
    owns = [(part, part._attn_implementation) for part in _parts(config)]
    try:
        for part in (config, config.get_text_config(decoder=True)):
            if part._attn_implementation != implementation:
                part._attn_implementation = implementation
        yield
    finally:
        for part, own in owns:  # the top first, as it writes through
            if part._attn_implementation != own:
                part._attn_implementation = own


def _parts(config: Any) -> list[Any]:
    """The configuration and those inside it, outer ones first."""
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    found = [config, *(part for child in inner if child is not None for part in _parts(child))]
    return found
