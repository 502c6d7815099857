"""The model that rollouts run on."""

import copy
import re
from itertools import chain
from typing import Any

import torch

from elastic.models.adapter_merge import merge, merged_copy


class RolloutModel:
    """The trained model itself, or a copy: in 16 bits for mixed precision, with its adapter merged, or both.

    Under autocast, keys leave the rotary embedding in float32 and values leave their projection in 16 bits, a
    mixture that no KV cache stores; and flash-attn takes no float32 weights. So mixed precision keeps float32
    weights for the optimizer and a 16-bit copy for rollouts, two more bytes per parameter.

    Only parameters are rounded. Buffers stay as they are: in bfloat16 the frequencies of a rotary embedding
    are off by up to 0.4 %, which at position 2,000 is more than a turn.

    A merged copy decodes faster than an adapter's layers. Of the trained model's tensors it shares those that
    are frozen, unless they are rounded.

    Args:
        model: the trained model.
        mixed_precision: ``no`` or ``bf16``.
        merged: whether to decode with the adapter merged into the weights.
    """

    def __init__(self, model: Any, mixed_precision: str, merged: bool = False) -> None:
        self._trained, self._merged = model, merged
        copies = mixed_precision != "no" and model.dtype == torch.float32
        module = merged_copy(model) if merged else model
        self.module = _rounded_copy(module) if copies else module

    @torch.no_grad()
    def sync(self) -> None:
        """Brings a copy up to date; called before every rollout and evaluation."""
        if self.module is self._trained:
            return
        if self._merged:
            merge(self._trained, self.module)
            return
        pairs = zip(_tensors(self.module), _tensors(self._trained), strict=True)
        for own, trained in pairs:
            own.copy_(trained)


def _tensors(model: Any) -> chain[torch.Tensor]:
    return chain(model.parameters(), model.buffers())


def _rounded_copy(model: Any) -> Any:
    """A frozen copy with the parameters that `from_pretrained(dtype=torch.bfloat16)` would round, rounded."""
    module = copy.deepcopy(model).requires_grad_(False)
    for part in module.modules():
        vars(part).pop("forward", None)  # put there by a trainer, and bound to the model that it trains
    # Layers whose own code expects float32 weights beside 16-bit activations; they are named by patterns.
    kept = getattr(module, "_keep_in_fp32_modules_strict", None) or ()
    patterns = [re.compile(pattern.replace("*", ".*")) for pattern in kept]
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not any(pattern.search(name) for pattern in patterns):
            parameter.data = parameter.data.to(torch.bfloat16)
    return module
