"""How the rows of a decode step attend to their slots: by lengths, or under a mask; and which is chosen.

n rows, Hq query heads, H key/value heads, L columns, D head dimension.

Transformers' models call the function below instead of their own attention while the step sets their
implementation to its name. What a row may read reaches it with the forward call, as `slot_reads=`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from elastic.models.serving import attention_set, masked_implementation, prompt_implementation
from elastic.rollout.attention.attend import attend
from elastic.rollout.attention.flash import flash_obstacle, flash_packages
from elastic.rollout.attention.flex import flex_obstacle
from elastic.rollout.attention.masked import by_pool, length_mask, masked_attention

SLOT_ATTENTION = "elastic_slots"
CHOICES = ("auto", "flash", "flex", "sdpa")


@dataclass(frozen=True)
class SlotAttention:
    """How a model's rows attend in a decode step.

    Attributes:
        backend: as of `attend`, "flash:MODULE" or "flex", which go by lengths, or "sdpa", under a mask; or
            "mask", the model's own attention under a mask, which knows no windows.
        reason: why this one, in words.
        implementation: that the model's configuration is set to for steps; None leaves what it is.
        prompts: that it is set to for prompts, likewise.
        seen: where a list is given, every attention layer that runs is appended.
    """

    backend: str
    reason: str = ""
    implementation: str | None = SLOT_ATTENTION
    prompts: str | None = None
    seen: list[nn.Module] | None = None

    @property
    def kind(self) -> str:
        """The backend without its module."""
        return self.backend.partition(":")[0]

    @property
    def by_lengths(self) -> bool:
        """Whether a step reads what its rows' lengths say, whatever the columns of the cache."""
        return self.kind in ("flash", "flex")

    def stepping(self, model: Any) -> AbstractContextManager[None]:
        """The model as steps need it. Meant for many steps: a switch takes as long as a tiny layer."""
        return nullcontext() if self.implementation is None else attention_set(model, self.implementation)

    def prompting(self, model: Any) -> AbstractContextManager[None]:
        """The model as prompts need it, within `stepping`."""
        return nullcontext() if self.prompts is None else attention_set(model, self.prompts)


MASKED = SlotAttention("mask", implementation=None)


@dataclass
class SlotReads:
    """What the rows of one step may read.

    Attributes:
        lengths: [n] int32 or int64 columns of each row, its new token's included.
        columns: L of the widest pool.
        dtype: of the masks.
        made: the step's masks, by window.
    """

    attention: SlotAttention
    lengths: Tensor
    columns: int
    dtype: torch.dtype
    made: dict[int, Tensor] = field(default_factory=dict)

    def mask(self, window: int = 0) -> Tensor:
        """[n, 1, 1, L] additive, made once per step."""
        if window not in self.made:
            self.made[window] = length_mask(self.lengths, self.columns, window, self.dtype)
        return self.made[window]

    def arguments(self) -> dict[str, Any]:
        """The arguments of the model's forward call that say so."""
        if self.attention.by_lengths:
            # Under a name without a mask function, transformers makes none.
            return {"attention_mask": None, "slot_reads": self}
        given = {"attention_mask": self.mask()}
        return given if self.attention.backend == "mask" else given | {"slot_reads": self}


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor | Sequence[Tensor],
    value: Tensor | Sequence[Tensor],
    attention_mask: Tensor | None = None,
    *,
    slot_reads: SlotReads | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of a step's rows over their slots, in the signature transformers calls.

    Args:
        module: the attention layer; its `sliding_window` counts where the call names none.
        query: [n, Hq, 1, D], rotary embedding applied.
        key, value: [n, H, L, D] of the slots in use, or one of each pool (see `attend`).
        attention_mask: additive [n, 1 or Hq, 1, L]; without a window it is heeded, so that a layer may have
            changed it.
        slot_reads: of the step, passed through the model's forward call.
        scaling: of the scores; by default D ** -0.5.
        softcap, s_aux: cap of the scores and attention sinks [Hq].

    Returns:
        ([n, 1, Hq, D'], None).

    Raises:
        ValueError: no lengths, or a layer that needs what this does not know.
    """
    if slot_reads is None:
        raise ValueError(f"attention '{SLOT_ATTENTION}' needs what the rows may read as slot_reads=")
    if position_bias is not None:
        raise ValueError(f"attention '{SLOT_ATTENTION}': position biases are not supported")
    if slot_reads.attention.seen is not None:
        slot_reads.attention.seen.append(module)
    keys, values = ([x] if isinstance(x, Tensor) else list(x) for x in (key, value))
    window = others.get("sliding_window", getattr(module, "sliding_window", None)) or 0
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    backend = slot_reads.attention.backend
    if slot_reads.attention.by_lengths:
        out = attend(query, keys, values, slot_reads.lengths, scale, window, softcap or 0.0, s_aux, backend)
        return out, None
    mask = slot_reads.mask(window)
    if attention_mask is not None and attention_mask is not slot_reads.mask():
        if window:
            raise ValueError(f"attention '{SLOT_ATTENTION}': a layer with a window has a mask of its own")
        mask = attention_mask
    if len(keys) == 1:
        return masked_attention(query, keys[0], values[0], mask, scale, softcap or 0.0, s_aux), None

    def of_rows(rows: slice, k: Tensor, v: Tensor) -> Tensor:
        own = mask[rows, ..., : k.shape[2]]
        return masked_attention(query[rows], k, v, own, scale, softcap or 0.0, s_aux)

    return torch.cat(by_pool(keys, values, of_rows)), None


AttentionInterface.register(SLOT_ATTENTION, slot_attention)


def candidates(model: Any, wanted: str, device: torch.device) -> list[SlotAttention]:
    """The attentions to be tried in turn; the first that is proven on the model serves.

    Args:
        wanted: "auto", "flash", "flex" or "sdpa".

    Raises:
        TypeError, ValueError: no such choice, or one that cannot run here, naming what is missing.
    """
    if not isinstance(wanted, str):
        raise TypeError(f"attention: expected one of {', '.join(CHOICES)}, got {wanted!r}")
    if wanted not in CHOICES:
        raise ValueError(f"attention: expected one of {', '.join(CHOICES)}, got {wanted!r}")
    no_flash = flash_obstacle(device, _dtype(model), _width(model))
    no_flex = flex_obstacle(device)
    if obstacle := {"flash": no_flash, "flex": no_flex}.get(wanted):
        raise ValueError(f"attention: {wanted!r} was asked for, but {obstacle}")
    modules = {} if no_flash else flash_packages(device)[0]
    why = no_flash or f"{', '.join(modules.values())} does not serve this model"
    found = [(f"flash:{module}", f"{name} is installed") for module, name in modules.items()]
    found += [] if no_flex else [("flex", why)]
    found += [("sdpa", why)]
    if wanted != "auto":
        found = [(backend, "asked for") for backend, _ in found if backend.partition(":")[0] == wanted]
    prompts = prompt_implementation(model)
    tried = [SlotAttention(backend, reason, prompts=prompts) for backend, reason in found]
    if tried[-1].backend == "sdpa":
        reason = "it cannot be exchanged for another"
        tried.append(SlotAttention("mask", reason, masked_implementation(model), prompts))
    return tried


def _dtype(model: Any) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _width(model: Any) -> int | None:
    """The head dimension, where the configuration names it or what it follows from."""
    config = model.config.get_text_config(decoder=True)
    width = getattr(config, "head_dim", None)
    size, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    if isinstance(width, int):
        return width
    return size // heads if isinstance(size, int) and isinstance(heads, int) else None
