"""Whether rows decode from the slot cache to what the model says of them: proven before the first rollout.

The step's mask lets a row see its own columns, whatever others read beside it. Attention that ignores the
mask, counts columns instead of positions or sees a window only would decode garbage, so a short row beside a
long one is decoded for a few tokens and compared with the model's own logits.
"""

import re
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from elastic.models import probe
from elastic.rollout.cache import SlotCache, prefill
from elastic.rollout.step import forward

_SHORT_TOKENS, _LONG_TOKENS, _STEPS = 5, 12, 3
_BEYOND_TOKENS = 16  # a window, so that the short row is outside the long one's
_LONGEST_TOKENS = 1040  # that are decoded to look beyond a window
_WINDOW = re.compile(r"window(_size|_len)?$|^local_attention$|chunk_size$|block_size$|index_topk$")
_NO_ATTENTION = re.compile(r"feed_forward|lm_head|mamba|conv|ssm")
# of each model, the attention implementations that are proven
_PROVEN: "WeakKeyDictionary[nn.Module, set[str]]" = WeakKeyDictionary()


def prove_decoding(model: Any, context: int | None) -> None:
    """Compares decoding with the model's own logits. Proven once a model and attention, and remembered.

    Args:
        model: in the state it decodes in: evaluation mode, no gradients, an attention that takes masks. A
            dozen forward passes of at most 12 tokens are run; of more than its window, up to 1,040, where the
            configuration declares one.
        context: most tokens of a row, or None.

    Raises:
        ValueError: decoding gives other logits, or the configuration declares a window that cannot be
            checked; says what was found.
    """
    config = model.config.get_text_config(decoder=True)
    proven = _PROVEN.setdefault(model, set())
    if config._attn_implementation in proven:
        return
    context = context or _LONGEST_TOKENS
    windows = {name: size for name, size in declared_windows(config).items() if size < context}
    beyond = max(windows.values()) + _BEYOND_TOKENS if windows else 0
    long = min(max(_LONG_TOKENS, beyond), context - _STEPS)
    declared = ", ".join(f"{name}={size}" for name, size in windows.items())
    found = "a row beyond its window is too long to be tried"
    if long <= _LONGEST_TOKENS:
        found = _failure(model, min(_SHORT_TOKENS, long - 1), long)
    if found:
        hint = f"; its configuration declares {declared}" if declared else ""
        raise ValueError(f"model: {config.model_type} cannot be decoded in slots: {found}{hint}")
    proven.add(config._attn_implementation)


def declared_windows(config: Any) -> dict[str, int]:
    """Numbers of tokens, by the names they have in a configuration, that attention may be limited to.

    Args:
        config: of the text model. Where it lists `layer_types`, these say what its `sliding_window` is for.
    """
    found = {}
    for name, value in config.to_dict().items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            continue
        listed = name == "sliding_window" and getattr(config, "layer_types", None) is not None
        if _WINDOW.search(name) and not _NO_ATTENTION.search(name) and not listed:
            found[name] = value
    return found


def _failure(model: Any, short: int, long: int) -> str:
    """What is wrong with a row of `short` tokens beside one of `long`; empty for nothing."""
    try:
        tokens = probe.ordinary_tokens(model, short + long + 2 * _STEPS)
        rows = [tokens[: short + _STEPS], tokens[short + _STEPS :]]
        scale = probe.measure(model, rows[0], short)
        alone = [probe.plain_logits(model, row, range(len(row) - _STEPS - 1, len(row))) for row in rows]
        if not scale.causal:
            return "a token's logits depend on the tokens behind it, so it is no causal language model"
        decoded = _decode(model, rows)
    except Exception as error:
        return f"its forward pass fails ({probe.reason_of(error)})"
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


def _decode(model: Any, rows: list[list[int]]) -> list[Tensor]:
    """[steps + 1, V] float32 of each row: behind its prompt, and behind each of the tokens it is then fed."""
    device = next(model.parameters()).device
    prompts = [row[:-_STEPS] for row in rows]
    prefixes = prefill(model, prompts, device)
    cache = SlotCache(prefixes[0], len(rows), max(map(len, rows)))
    for slot, prefix in enumerate(prefixes):
        cache.insert(torch.tensor([slot], device=device), prefix)
    logits = torch.stack([prefix.logits for prefix in prefixes])
    slots = SimpleNamespace(
        logits=logits.clone(),
        tokens=torch.zeros(len(rows), dtype=torch.int64, device=device),
        positions=torch.tensor([len(prompt) for prompt in prompts], device=device),
    )
    found = [logits]
    for step in range(_STEPS):
        slots.tokens.copy_(torch.tensor([row[len(row) - _STEPS + step] for row in rows]))
        forward(model, cache, cast(Any, slots), len(rows), max(map(len, prompts)) + step + 1)
        found.append(slots.logits.clone())
    return list(torch.stack(found, dim=1))
