"""Whether a model's training rows can be packed or must be padded; tried before the first rollout.

A packed batch is right only where every layer's attention goes through transformers' attention interface and
does nothing that `tree_attention` does not support. No list of architectures decides that: a few tokens are
run packed, padded and one row after the other, and must agree. Where the configuration limits attention to a
window, rows longer than it are run too: a sliding window is narrowed to a few tokens meanwhile.
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from elastic.models import probe
from elastic.models.serving import evaluating, exclusive
from elastic.rollout.attention.windows import SLIDING, declared_windows, narrowed
from elastic.train.update.packing import PackedBatch, pack, packed_logits
from elastic.train.update.tree import TREE_ATTENTION, switched

# prompts' tokens; completions' tokens; prompt of each
_PROMPTS, _COMPLETIONS, _PROMPT_OF = (4, 3), (6, 5, 4), (0, 0, 1)
_NARROW_TOKENS = 3  # the sliding window meanwhile, shorter than every row
_LONGEST_TOKENS = 1024  # of another window, and
_BEYOND_TOKENS = 16  # how much longer a row is then
_PACKS: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def packs(model: Any) -> bool:
    """Whether a model's rows may be packed; else they must be padded. Tried once per model and remembered.

    Args:
        model: unwrapped, on its device. A dozen forward passes of at most 22 tokens are run, and up to two
            dozen more where its configuration declares a window, of 1,040 tokens at most; modes of its
            modules, generators and gradients are left as they are.

    Raises:
        ValueError: neither packed nor padded rows give the model's own logits; says what was found.
    """
    if model not in _PACKS:
        _PACKS[model] = _prove(model)
    return _PACKS[model]


def _prove(model: Any) -> bool:
    name = f"{type(model).__name__} ({model.config.model_type})"
    device = next(model.parameters()).device
    with (
        exclusive(model),
        evaluating(model),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.no_grad(),
    ):
        try:
            rows = _Rows(model)
        except Exception as error:
            why = f"its forward pass fails ({probe.reason_of(error)})"
            raise ValueError(f"model: {name} cannot be trained: {why}") from error
        if not rows.scale.causal:
            raise ValueError(
                f"model: {name} cannot be trained: a token's logits depend on the tokens behind it, so it is "
                "no causal language model"
            )
        packing = rows.failure(packed=True) or _beyond_windows(model)
        if not packing:
            return True
        padding = rows.failure(packed=False)
    if padding:
        raise ValueError(f"model: {name} cannot be trained: rows packed: {packing}; rows padded: {padding}")
    warnings.warn(
        f"{name}: {packing}; its rows are padded in updates instead, which takes more time and memory",
        stacklevel=2,
    )
    return False


def _beyond_windows(model: Any) -> str:
    """What is wrong with packed rows that are longer than the model's windows; empty for nothing."""
    windows = declared_windows(model.config.get_text_config(decoder=True))
    slides = windows.pop(SLIDING, 0) > _NARROW_TOKENS  # rows have met a narrower one already
    if any(size > _LONGEST_TOKENS for size in windows.values()):
        found = ", ".join(f"{name}={size}" for name, size in windows.items())
        return f"its configuration declares {found}, beyond which rows are too long to be tried"
    if not slides and not windows:
        return ""
    longest = max(windows.values()) + _BEYOND_TOKENS if windows else 0
    wide = _Rows(model, longest).alone if slides else []
    with narrowed(model, _NARROW_TOKENS) if slides else nullcontext():
        rows = _Rows(model, longest)
        if slides and probe.difference(rows.alone, wide) <= rows.scale.tolerance:
            return "its sliding window is not where it could be narrowed, so it cannot be tried"
        return rows.failure(packed=True)


class _Rows:
    """A few rows, with the model's logits of each row alone.

    Args:
        model: the model.
        longest: tokens of the first completion, if that is more than usual.
    """

    def __init__(self, model: Any, longest: int = 0) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.lengths = [max(_COMPLETIONS[0], longest), *_COMPLETIONS[1:]]
        sizes = [*_PROMPTS, *self.lengths, self.lengths[0]]
        tokens = iter(probe.ordinary_tokens(model, sum(sizes)))
        parts = [[next(tokens) for _ in range(size)] for size in sizes]
        self.prompts, completions = parts[: len(_PROMPTS)], parts[len(_PROMPTS) :]
        self.completions, self.other = completions[:-1], completions[-1]
        rows = [self.prompts[p] + c for p, c in zip(_PROMPT_OF, self.completions, strict=True)]
        firsts = [len(self.prompts[p]) - 1 for p in _PROMPT_OF]
        self.alone = [
            probe.plain_logits(model, row[:-1], range(first, len(row) - 1))
            for row, first in zip(rows, firsts, strict=True)
        ]
        self.scale = probe.measure(model, rows[0], len(rows[0]) - 3)

    def failure(self, packed: bool) -> str:
        """What is wrong with the packed or the padded forward; empty for nothing."""
        run: Callable[[PackedBatch], Tensor] = self._switched if packed else self._padded
        batch = self._batch(self.completions)
        try:
            logits = run(batch)
            changed = run(self._batch([self.other, *self.completions[1:]]))
        except Exception as error:
            why = probe.reason_of(error)
            return str(error) if TREE_ATTENTION in why else f"its forward pass fails ({why})"
        if packed and (missing := self._unseen(len(batch.layout.seen_by))):
            return missing
        together, beside = (part.split(self.lengths) for part in (logits, changed))
        # The shapes are the same, so only experts, which get other numbers of tokens, round differently.
        if probe.difference(beside[1:], together[1:]) > self.scale.rounding:
            return "completions of one batch see each other"
        if (found := probe.difference(together, self.alone)) > self.scale.tolerance:
            return (
                f"logprobs are not those of each row alone: they differ by {found:.2g}, where another token "
                f"makes {self.scale.effect:.2g} and rounding at most {self.scale.tolerance:.2g}"
            )
        return ""

    def _unseen(self, calls: int) -> str:
        layers = self.model.config.get_text_config(decoder=True).num_hidden_layers
        if calls >= layers:
            return ""
        which = f"that of {layers - calls} of {layers} layers" if calls else "its attention"
        return f"{which} does not go through transformers' attention interface"

    def _batch(self, completions: list[list[int]]) -> PackedBatch:
        rows = [torch.tensor(completion) for completion in completions]
        return pack(self.prompts, rows, list(_PROMPT_OF), self.device)

    def _switched(self, batch: PackedBatch) -> Tensor:
        with switched(self.model):
            return packed_logits(self.model, batch)

    def _padded(self, batch: PackedBatch) -> Tensor:
        return packed_logits(self.model, batch)
