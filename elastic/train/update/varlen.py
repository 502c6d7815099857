"""Attention over packed prompt trees by lengths: no padding and no mask, for kernels that take offsets.

Each prompt is one sequence. Each completion is one too: its own tokens ask, the keys are those of its prompt,
then its own, under the causal mask that is aligned at the last query and key. Queries stand in a packed batch
in this order already; only keys and values of prompts are copied, once for each completion.

Hq query heads, H key/value heads, D head dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from elastic.train.update.transfer import to_device


class Sequences(NamedTuple):
    """Where S sequences begin that lie one behind the other.

    Attributes:
        query_offsets: [S + 1] int32, where each one's queries start, and their number.
        key_offsets: [S + 1] int32, likewise.
        most_queries: of a sequence.
        most_keys: of a sequence.
    """

    query_offsets: Tensor
    key_offsets: Tensor
    most_queries: int
    most_keys: int


class VarlenKernel(Protocol):
    """Causal attention of sequences, differentiable in queries, keys and values."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sequences: Sequences,
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        """[Tq, Hq, D'] from [Tq, Hq, D], [Tk, H, D] and [Tk, H, D'].

        The last query of a sequence sees all its keys, the one before all but the last, and so on.

        Args:
            scale: of the scores; None for 1 / sqrt(D).
            window: how many of these keys a query sees at most, the last ones; None for all.
        """


@dataclass(frozen=True)
class VarlenLayout:
    """Where the M tokens of a packed batch stand among the keys of its sequences.

    Attributes:
        kernel: what attends.
        token_of_key: [Tk] int64, the packed token of each key.
        key_of_own: [N] int64, the key of each completion token.
        keys_of_shared: [M - N, G] int64, all keys of each prompt token, one for each sequence that sees it.
        missing: [M - N, G, 1, 1] bool, True where a prompt token has fewer; None where all have G.
        sequences: prompts that share a token, then completions.
        longest: most positions any query can see, its own included.
        seen_by: attention modules that were given this layout, in order of their calls.
    """

    kernel: VarlenKernel
    token_of_key: Tensor
    key_of_own: Tensor
    keys_of_shared: Tensor
    missing: Tensor | None
    sequences: Sequences
    longest: int
    seen_by: list[nn.Module] = field(default_factory=list, compare=False)

    @classmethod
    def build(
        cls,
        prompt_lengths: Sequence[int],
        lengths: Sequence[int],
        prompt_of: Sequence[int],
        device: torch.device,
        kernel: VarlenKernel,
    ) -> "VarlenLayout":
        """Lays out what `TreeLayout.build` does, from the same arguments, for a kernel."""
        shared, starts = sum(prompt_lengths), list(accumulate(prompt_lengths, initial=0))
        asked = [n for n in prompt_lengths if n]  # a sequence of none is not every kernel's
        seen = [*asked, *(prompt_lengths[p] + n for p, n in zip(prompt_of, lengths, strict=True))]
        keys = [torch.arange(shared)]
        own, sees = [], [[starts[prompt]] for prompt in range(len(prompt_lengths))]
        first, token = shared, shared
        for prompt, length in zip(prompt_of, lengths, strict=True):
            width = prompt_lengths[prompt]
            keys += [
                torch.arange(starts[prompt], starts[prompt] + width),
                torch.arange(token, token + length),
            ]
            own.append(torch.arange(first + width, first + width + length))
            sees[prompt].append(first)
            first, token = first + width + length, token + length
        copies = max(map(len, sees), default=1)
        of_shared = torch.full((shared, copies), -1)
        for prompt, places in enumerate(sees):
            rows = slice(starts[prompt], starts[prompt + 1])
            column = torch.arange(prompt_lengths[prompt])[:, None]
            of_shared[rows, : len(places)] = torch.tensor(places) + column
        missing = (of_shared < 0)[:, :, None, None]
        return cls(
            kernel,
            to_device(torch.cat(keys), device),
            to_device(torch.cat(own), device),
            to_device(of_shared.clamp(min=0), device),
            to_device(missing, device) if missing.any() else None,
            Sequences(
                to_device(_offsets([*asked, *lengths]), device),
                to_device(_offsets(seen), device),
                max([*asked, *lengths]),
                max(seen),
            ),
            max(seen),
        )

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        """[M, Hq, D'] from [M, Hq, D], [M, H, D] and [M, H, D']; under autocast in its dtype, as SDPA."""
        kind = query.device.type
        if torch.is_autocast_enabled(kind):
            narrow = torch.get_autocast_dtype(kind)
            query, key, value = query.to(narrow), key.to(narrow), value.to(narrow)
        key, value = _ToKeys.apply(key, self), _ToKeys.apply(value, self)
        return self.kernel(query, key, value, self.sequences, scale, window)


class _ToKeys(torch.autograd.Function):
    """Packed tokens [M, ...] -> keys [Tk, ...].

    The backward sums a prompt's copies in float32 and in a fixed order, where that of indexing would add them
    one by one in the tensors' own dtype, in any order.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        return tokens.index_select(0, layout.token_of_key)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layout: VarlenLayout = ctx.layout
        copies = grad[layout.keys_of_shared]
        if layout.missing is not None:
            copies = copies.masked_fill(layout.missing, 0)
        shared = copies.sum(1, dtype=torch.promote_types(grad.dtype, torch.float32)).to(grad.dtype)
        return torch.cat([shared, grad.index_select(0, layout.key_of_own)]), None


def plain_varlen(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None, window: int | None
) -> Tensor:
    """A `VarlenKernel` by its definition, one sequence after the other; what kernels are held to."""
    outputs = []
    bounds = zip(sequences.query_offsets.tolist(), sequences.key_offsets.tolist(), strict=True)
    first_q, first_k = next(bounds)
    for last_q, last_k in bounds:
        q, k, v = query[first_q:last_q], key[first_k:last_k], value[first_k:last_k]
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        sees = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device).tril(len(k) - len(q))
        if window is not None:
            sees = sees.triu(len(k) - len(q) - window + 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~sees, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
        first_q, first_k = last_q, last_k
    return torch.cat(outputs)


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
