"""Keys, values and next logits of prompts: the model's forward over them, in parts of bounded size.

A prompt that another one begins with is not run again: its keys and values are the other's first columns.

B prompts of one forward, P tokens of the longest, E wanted beginnings of one of them at most.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from transformers import modeling_utils
from transformers.cache_utils import DynamicCache

from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT, Prefix

PREFILL_TOKENS = 8192  # in one forward at most, padding included
PREFILL_LOGITS = 512  # columns whose logits a forward makes at most, where prompts share beginnings
# Older releases of transformers (5.19 is one) give the logits of the same columns for every row: with them
# prompts go through the model one by one.
EACH_ROWS_LOGITS = hasattr(modeling_utils, "slice_logits_to_keep")


def prefill(
    model: Any,
    prompts: Sequence[Sequence[int]],
    device: torch.device,
    most_tokens: int = PREFILL_TOKENS,
    ends: Sequence[Sequence[int]] | None = None,
) -> list[Prefix]:
    """Runs the model over prompts of any lengths, in several forwards where they are long.

    Padded on the right without a mask: causal attention keeps the padding out of everything that is read. A
    later forward attends to the keys of those before, so activations stay those of `most_tokens` tokens
    however long a prompt is; only attention's mask grows with it.

    Args:
        prompts: at least one, none empty.
        most_tokens: in one forward at most, padding included; but at least one column.
        ends: of each prompt, how many tokens its wanted beginnings have; by default all of them, once.

    Returns:
        A prefix for each end, prompt by prompt, as views of the batch's tensors.
    """
    lengths = [len(prompt) for prompt in prompts]
    ends = [[length] for length in lengths] if ends is None else ends
    if len(prompts) > 1 and not EACH_ROWS_LOGITS:
        each = zip(prompts, ends, strict=True)
        alone = [prefill(model, [prompt], device, most_tokens, [own]) for prompt, own in each]
        return [prefix for prefixes in alone for prefix in prefixes]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(device)
    cache = DynamicCache()  # of no configuration: layers with a sliding window keep all columns, too
    most = max(len(own) for own in ends)
    padded = [[*own, *[own[-1]] * (most - len(own))] for own in ends]
    last = torch.tensor(padded, device=device) - 1  # [B, E]
    logits, first = None, 0
    for part in ids.split(max(1, most_tokens // len(prompts)), dim=1):
        positions = torch.arange(first, first + part.shape[1], device=device)[None]
        out = model(
            part,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=(last - first).clamp(0, part.shape[1] - 1),
            **{CACHE_ARGUMENT: cache},
        )
        here = out.logits.float().reshape(*last.shape, -1)  # [B, E, V]
        # Of a beginning that ended in an earlier part, the logits were there.
        logits = here if logits is None else torch.where((last >= first)[..., None], here, logits)
        first += part.shape[1]
    assert logits is not None  # no prompt is empty
    layers = [(cast(Any, layer).keys, cast(Any, layer).values) for layer in cache.layers]
    return [
        Prefix([k[row, :, :end] for k, _ in layers], [v[row, :, :end] for _, v in layers], logits[row, place])
        for row, own in enumerate(ends)
        for place, end in enumerate(own)
    ]


class Trunk(NamedTuple):
    """A prompt with those that it begins with.

    Attributes:
        tokens: of the longest.
        names: of all that are made with it.
    """

    tokens: Sequence[int]
    names: list[int]


def trunks(prompts: Mapping[int, Sequence[int]]) -> list[Trunk]:
    """The prompts that are no beginning of another one, in the order they were given in, with those that are.

    In the order of a dictionary a beginning stands in front of what it begins, so neighbours are compared.
    """
    names = sorted(prompts, key=lambda name: list(prompts[name]))
    found: dict[int, Trunk] = {}
    above: Trunk | None = None
    for name in reversed(names):
        tokens = prompts[name]
        if above is None or list(above.tokens[: len(tokens)]) != list(tokens):
            found[name] = above = Trunk(tokens, [])
        above.names.append(name)
    return [found[name] for name in prompts if name in found]


def prefill_all(model: Any, prompts: Mapping[int, Sequence[int]], device: torch.device) -> dict[int, Prefix]:
    """The prefix of each prompt, as many prompts together as a forward may hold; a longer one goes alone."""
    prefixes: dict[int, Prefix] = {}
    waiting = deque(trunks(prompts))
    while waiting:
        batch = [waiting.popleft()]
        while waiting and _fits([*batch, waiting[0]]):
            batch.append(waiting.popleft())
        names = [name for trunk in batch for name in trunk.names]
        ends = [[len(prompts[name]) for name in trunk.names] for trunk in batch]
        made = prefill(model, [trunk.tokens for trunk in batch], device, PREFILL_TOKENS, ends)
        prefixes |= dict(zip(names, made, strict=True))
    return prefixes


def _fits(batch: Sequence[Trunk]) -> bool:
    tokens = max(len(trunk.tokens) for trunk in batch) * len(batch)
    ends = max(len(trunk.names) for trunk in batch)
    return tokens <= PREFILL_TOKENS and (ends == 1 or ends * len(batch) <= PREFILL_LOGITS)
