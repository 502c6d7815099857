"""The model that rollouts run on."""

import copy
import re
from typing import Any

import torch

from elastic.models.adapter_merge import merge, merged_copy
from elastic.models.sharding import whole_tensors


class RolloutModel:
    """The trained model itself, or a copy: in 16 bits for mixed precision, with its adapter merged, or both.

    Under autocast, keys leave the rotary embedding in float32 and values leave their projection in 16 bits, a
    mixture that no KV cache stores; and flash-attn takes no float32 weights. So mixed precision keeps float32
    weights for the optimizer and a 16-bit copy for rollouts, two more bytes per parameter.

    Processes that hold parts of a model would have to run each forward pass of the decoding together. So
    where the model is sharded, every process decodes on a whole copy, into which parameters are gathered one
    at a time before each rollout.

    Only parameters are rounded. Buffers stay as they are: in bfloat16 the frequencies of a rotary embedding
    are off by up to 0.4 %, which at position 2,000 is more than a turn.

    A merged copy decodes faster than an adapter's layers. Of the trained model's tensors it shares those that
    are frozen, unless they are rounded.

    Args:
        model: the trained model, still whole.
        mixed_precision: ``no`` or ``bf16``.
        merged: whether to decode with the adapter merged into the weights.
        shards: whether its parameters will be sharded.
        decodes: False where another process decodes: there is no copy then, and `sync` takes part in the
            gathering alone.
    """

    def __init__(
        self,
        model: Any,
        mixed_precision: str,
        merged: bool = False,
        shards: bool = False,
        decodes: bool = True,
    ) -> None:
        self._trained, self._merged, self._decodes = model, merged, decodes
        rounds = mixed_precision != "no" and model.dtype == torch.float32
        self._gathers = (rounds or shards) and not merged
        module = merged_copy(model) if merged and decodes else model
        self.module = _copy(module, rounds) if decodes and (rounds or shards) else module

    @torch.no_grad()
    def sync(self) -> None:
        """Brings a copy up to date; called before every rollout and evaluation, by all processes."""
        if not self._decodes and self._gathers:
            for _ in whole_tensors(self._trained):
                pass
        if self.module is self._trained:
            return
        if self._merged:
            merge(self._trained, self.module)
            return
        own = self.module.state_dict(keep_vars=True)
        for name, value in whole_tensors(self._trained):
            own[name].copy_(value)
        # Also those that no state dict has.
        for buffer, trained in zip(self.module.buffers(), self._trained.buffers(), strict=True):
            buffer.copy_(trained)


def _copy(model: Any, rounds: bool) -> Any:
    """A frozen copy; `rounds` the parameters that `from_pretrained(dtype=torch.bfloat16)` would round."""
    module = copy.deepcopy(model).requires_grad_(False)
    for part in module.modules():
        vars(part).pop("forward", None)  # put there by a trainer, and bound to the model that it trains
    if not rounds:
        return module
    # Layers whose own code expects float32 weights beside 16-bit activations; they are named by patterns.
    kept = getattr(module, "_keep_in_fp32_modules_strict", None) or ()
    patterns = [re.compile(pattern.replace("*", ".*")) for pattern in kept]
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not any(pattern.search(name) for pattern in patterns):
            parameter.data = parameter.data.to(torch.bfloat16)
    return module
