"""Keys, values and next logits of prompts: the model's forward over them, in parts of bounded size.

B prompts of one forward, P tokens of the longest.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from transformers.cache_utils import DynamicCache

from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT, Prefix

PREFILL_TOKENS = 8192  # in one forward at most, padding included


def prefill(
    model: Any, prompts: Sequence[Sequence[int]], device: torch.device, most_tokens: int = PREFILL_TOKENS
) -> list[Prefix]:
    """Runs the model over prompts of any lengths, in several forwards where they are long.

    Padded on the right without a mask: causal attention keeps the padding out of everything that is read. A
    later forward attends to the keys of those before, so activations stay those of `most_tokens` tokens
    however long a prompt is; only attention's mask grows with it.

    Args:
        prompts: at least one, none empty.
        most_tokens: in one forward at most, padding included; but at least one column.

    Returns:
        A prefix for each, as views of the batch's tensors.
    """
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(device)
    cache = DynamicCache()  # of no configuration: layers with a sliding window keep all columns, too
    last = torch.tensor(lengths, device=device)[:, None] - 1
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
        here = out.logits[:, 0].float()
        # Of a prompt that ended in an earlier part, the logits were there.
        logits = here if logits is None else torch.where(last >= first, here, logits)
        first += part.shape[1]
    assert logits is not None  # no prompt is empty
    layers = [(cast(Any, layer).keys, cast(Any, layer).values) for layer in cache.layers]
    return [
        Prefix([k[row, :, :length] for k, _ in layers], [v[row, :, :length] for _, v in layers], logits[row])
        for row, length in enumerate(lengths)
    ]


def prefill_all(model: Any, prompts: Mapping[int, Sequence[int]], device: torch.device) -> dict[int, Prefix]:
    """The prefix of each prompt, as many prompts together as a forward may hold; a longer one goes alone."""
    prefixes: dict[int, Prefix] = {}
    waiting = deque(prompts)
    while waiting:
        batch, longest = [waiting.popleft()], 0
        while waiting:
            longest = max(len(prompts[k]) for k in (*batch, waiting[0]))
            if longest * (len(batch) + 1) > PREFILL_TOKENS:
                break
            batch.append(waiting.popleft())
        made = prefill(model, [prompts[k] for k in batch], device, PREFILL_TOKENS)
        prefixes |= dict(zip(batch, made, strict=True))
    return prefixes
