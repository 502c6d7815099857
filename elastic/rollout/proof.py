"""Whether rows decode from the slot cache to what the model says of them: proven before the first rollout.

A row sees its own columns, whatever others read beside it, and of those no more than a layer's window.
Attention that ignores this, or counts columns instead of positions, would decode garbage, so a short row
beside a long one is decoded for a few tokens and compared with the model's own logits.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from elastic.models import probe
from elastic.rollout.attention.slot_attention import SlotAttention
from elastic.rollout.attention.windows import SLIDING, declared_windows, narrowed
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import SlotCache
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step.step import forward

_SHORT_TOKENS, _LONG_TOKENS, _STEPS = 5, 12, 3
_BEYOND_TOKENS = 16  # beyond a window, so that the short row is outside the long one's
_LONGEST_TOKENS = 1040  # of the row that looks beyond a window
_NARROW_TOKENS = 16  # the window of a layer whose own is too long to be tried
# by model, what was found wrong with an attention at some lengths: empty where it is proven
_FOUND: "WeakKeyDictionary[nn.Module, dict[tuple, str]]" = WeakKeyDictionary()


def prove_decoding(model: Any, context: int | None, attentions: Sequence[SlotAttention]) -> SlotAttention:
    """Compares decoding with the model's own logits, once per model and attention.

    Args:
        model: in the state it decodes in: evaluation mode, no gradients. A dozen forward passes of at most 12
            tokens are run for each attention that is tried; of more than its window, up to 1,040, where the
            configuration declares one. A sliding window beyond that is narrowed meanwhile, to 16 tokens, in
            the configuration and in the layers that hold it.
        context: most tokens of a row, or None.
        attentions: to be tried in turn.

    Returns:
        The first one under which rows decode to the model's own logits.

    Raises:
        ValueError: none of them does, or the configuration declares a window that cannot be checked; says
            what was found of the last.
    """
    config = model.config.get_text_config(decoder=True)
    context = context or _LONGEST_TOKENS
    windows = {name: size for name, size in declared_windows(config).items() if size < context}
    narrow = windows.get(SLIDING, 0) + _BEYOND_TOKENS > _LONGEST_TOKENS
    sizes = (windows | {SLIDING: _NARROW_TOKENS} if narrow else windows).values()
    beyond = max(sizes) + _BEYOND_TOKENS if sizes else 0
    long = min(max(_LONG_TOKENS, beyond), context - _STEPS)
    declared = ", ".join(f"{name}={size}" for name, size in windows.items())
    known = _FOUND.setdefault(model, {})
    for attention in attentions:
        key = config._attn_implementation, attention.backend, long, narrow
        if key not in known:
            known[key] = "a row beyond its window is too long to be tried"
            if long <= _LONGEST_TOKENS:
                known[key] = _failure(model, min(_SHORT_TOKENS, long - 1), long, attention, narrow)
        found = known[key]
        if not found:
            return attention
    hint = f"; its configuration declares {declared}" if declared else ""
    kind = f" with attention={attention.kind!r}" if attention.by_lengths else ""
    raise ValueError(f"model: {config.model_type} cannot be decoded in slots{kind}: {found}{hint}")


def _failure(model: Any, short: int, long: int, attention: SlotAttention, narrow: bool) -> str:
    """What is wrong with a row of `short` tokens beside one of `long`; empty for nothing."""
    tokens = probe.ordinary_tokens(model, short + long + 2 * _STEPS)
    rows = [tokens[: short + _STEPS], tokens[short + _STEPS :]]
    seen: list[nn.Module] = []
    try:
        wide = _alone(model, rows[1]) if narrow else None
        with narrowed(model, _NARROW_TOKENS) if narrow else nullcontext():
            scale = probe.measure(model, rows[0], short)
            alone = [_alone(model, row) for row in rows]
            if not scale.causal:
                return "a token's logits depend on the tokens behind it, so it is no causal language model"
            decoded = _decode(model, rows, replace(attention, seen=seen))
    except Exception as error:
        return f"its forward pass fails ({probe.reason_of(error)})"
    if attention.backend != "mask" and not seen:
        return "its attention does not go through transformers' attention interface"
    if wide is not None and probe.difference([wide], alone[1:]) <= scale.tolerance:
        return "its sliding window is too long to be tried, and is not where it could be narrowed"
    if probe.difference([d[:1] for d in decoded], [a[:1] for a in alone]) > scale.tolerance:
        return "prompts of different lengths, padded on the right, do not get the logits they have alone"
    for kind, row in (("short row beside a long one", 0), ("long row", 1)):
        difference = probe.difference([decoded[row][1:]], [alone[row][1:]])
        if difference > scale.tolerance:
            return (
                f"the logprobs of a {kind} ({short} and {long} tokens) differ by {difference:.2g} from those "
                f"it has alone, where another token makes {scale.effect:.2g} and rounding at most "
                f"{scale.tolerance:.2g}"
            )
    return ""


def _alone(model: Any, row: list[int]) -> Tensor:
    """[steps + 1, V] float32: what the model says of one row, at the places that are decoded."""
    return probe.plain_logits(model, row, range(len(row) - _STEPS - 1, len(row)))


def _decode(model: Any, rows: list[list[int]], attention: SlotAttention) -> list[Tensor]:
    """[steps + 1, V] float32 of each row: behind its prompt, and behind each of the tokens it is then fed."""
    device = next(model.parameters()).device
    prompts = [row[:-_STEPS] for row in rows]
    prefixes = prefill(model, prompts, device)
    # In pools of their own, where the attention takes several: one pool is the simpler case.
    apart = [Pool(1, len(row)) for row in rows]
    cache = SlotCache(prefixes[0], [Pool(2, len(rows[1]))] if attention.backend == "mask" else apart)
    for slot, prefix in enumerate(prefixes):
        cache.insert(torch.tensor([slot], device=device), prefix)
    logits = torch.stack([prefix.logits for prefix in prefixes])
    slots = SimpleNamespace(
        logits=logits.clone(),
        tokens=torch.zeros(len(rows), dtype=torch.int64, device=device),
        positions=torch.tensor([len(prompt) for prompt in prompts], device=device),
    )
    found = [logits]
    with attention.stepping(model):
        for step in range(_STEPS):
            slots.tokens.copy_(torch.tensor([row[len(row) - _STEPS + step] for row in rows]))
            columns = max(map(len, prompts)) + step + 1
            forward(model, cache, cast(Any, slots), len(rows), columns, attention)
            found.append(slots.logits.clone())
    return list(torch.stack(found, dim=1))
