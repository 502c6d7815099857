"""Where the tokens of a packed batch stand in the padded calls of its attention.

Only attention is padded: completions are sorted by length into buckets, with one fused call per bucket.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from elastic.train.update.transfer import to_device

# A bucket grows while the attention cells (queries x keys) that padding adds stay below this share.
# Forward + backward of 192 completions of 30-104 tokens, hidden 128: 680 ms at 0.1, 693 at 0.2, 795 at 0.5.
_MAX_PADDING_SHARE = 0.1
# ... and while it stays below this many cells per head: longer rows fill a call by themselves.
_MAX_BUCKET_CELLS = 1 << 22
# Bytes of the largest mask; kernels that take one make up to four times as much of it, in floats.
_MOST_MASK_CELLS = 1 << 26


@dataclass(frozen=True)
class Bucket:
    """Completions that share one attention call.

    Attributes:
        first_slot: where its queries start among all slots.
        rows: how many completions.
        width: query positions of each, the longest completion's length.
        prompt: [rows] int64, the prompt of each.
        prompt_width: prompt key positions of each, the longest prompt's length.
        mask: [rows or 1, 1, width, prompt_width + width] bool, True where a query sees a key. None for one
            row whose prompt asks too, under the causal mask, which no kernel needs as a tensor.
    """

    first_slot: int
    rows: int
    width: int
    prompt: Tensor
    prompt_width: int
    mask: Tensor | None


class Masks(NamedTuple):
    """What queries see in the padded calls: of prompts [P, P] bool or None for causal, and of each bucket.

    A bucket that needs no mask without a window has none with one either.
    """

    prompts: Tensor | None
    buckets: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class TreeLayout:
    """Where the tokens of a packed batch stand in the padded attention calls.

    A slot is a (row, position) of a padded call; slots of prompts come first, then bucket after bucket.

    Attributes:
        token_of_slot: [S] int64, padding slots point at some token.
        slot_of_token: [M] int64, the one slot of each packed token.
        padding_slots: [S'] int64, the slots without a token.
        prompts: number of prompts.
        prompt_width: query positions of each prompt, 0 where no prompt has a shared token.
        buckets: the completions' calls.
        longest: most positions any query can see, its own included.
        seen_by: attention modules that were given this layout, in order of their calls.
        windowed: masks that `masks` made, by window.
    """

    token_of_slot: Tensor
    slot_of_token: Tensor
    padding_slots: Tensor
    prompts: int
    prompt_width: int
    buckets: tuple[Bucket, ...]
    longest: int
    seen_by: list[nn.Module] = field(default_factory=list, compare=False)
    windowed: dict[int, "Masks"] = field(default_factory=dict, compare=False)

    def masks(self, window: int | None) -> "Masks":
        """The masks of a layer in which a token sees `window` positions, its own included; None for all."""
        if window is None or self.longest <= window:
            return Masks(None, tuple(bucket.mask for bucket in self.buckets))
        if window not in self.windowed:  # layers share them
            device = self.token_of_slot.device
            place = torch.arange(self.prompt_width, device=device)
            prompts = (place[:, None] >= place) & (place[:, None] - place < window)
            buckets = (None if b.mask is None else _within(b, b.mask, window) for b in self.buckets)
            self.windowed[window] = Masks(prompts, tuple(buckets))
        return self.windowed[window]

    @classmethod
    def build(
        cls, prompt_lengths: list[int], lengths: list[int], prompt_of: list[int], device: torch.device
    ) -> "TreeLayout":
        """Lays out prompts (in order), then completions (in order), as they stand in the packed sequence.

        Args:
            prompt_lengths: shared tokens of each prompt, 0 is legal.
            lengths: packed tokens of each completion, at least 1.
            prompt_of: index of each completion's prompt.
            device: where the model is.
        """
        prompt_width = max(prompt_lengths, default=0)
        blocks = [_slots(prompt_lengths, _starts(prompt_lengths, 0), prompt_width)]
        starts = _starts(lengths, sum(prompt_lengths))
        buckets: list[Bucket] = []
        first_slot = blocks[0].numel()
        for rows in _bucket_rows(prompt_lengths, lengths, prompt_of):
            width = max(lengths[row] for row in rows)
            prompts = [prompt_of[row] for row in rows]
            widths = [prompt_lengths[prompt] for prompt in prompts]
            blocks.append(_slots([lengths[row] for row in rows], [starts[row] for row in rows], width))
            buckets.append(
                Bucket(
                    first_slot=first_slot,
                    rows=len(rows),
                    width=width,
                    prompt=to_device(torch.tensor(prompts), device),
                    prompt_width=max(widths),
                    mask=None if _whole(widths, width) else to_device(_mask(widths, width), device),
                )
            )
            first_slot += len(rows) * width
        token_of_slot = torch.cat(blocks)
        padding_slots = (token_of_slot < 0).nonzero()[:, 0]
        slot_of_token = torch.empty(sum(prompt_lengths) + sum(lengths), dtype=torch.int64)
        used = (token_of_slot >= 0).nonzero()[:, 0]
        slot_of_token[token_of_slot[used]] = used
        longest = max((prompt_lengths[p] + n for p, n in zip(prompt_of, lengths, strict=True)), default=0)
        return cls(
            to_device(token_of_slot.clamp(min=0), device),
            to_device(slot_of_token, device),
            to_device(padding_slots, device),
            len(prompt_lengths),
            prompt_width,
            tuple(buckets),
            longest,
        )


def _starts(lengths: list[int], first: int) -> list[int]:
    starts = []
    for length in lengths:
        starts.append(first)
        first += length
    return starts


def _slots(lengths: list[int], starts: list[int], width: int) -> Tensor:
    """[rows * width] int64: packed token of each slot, -1 behind a row's end."""
    column = torch.arange(width)
    tokens = torch.tensor(starts, dtype=torch.int64)[:, None] + column
    return tokens.masked_fill(column >= torch.tensor(lengths, dtype=torch.int64)[:, None], -1).flatten()


def _bucket_rows(prompt_lengths: list[int], lengths: list[int], prompt_of: list[int]) -> list[list[int]]:
    """Rows of similar length together, longest first."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], -prompt_lengths[prompt_of[row]]))
    result: list[list[int]] = []
    needed, width, prompt_width = 0, 0, 0
    for row in order:
        length, prompt_length = lengths[row], prompt_lengths[prompt_of[row]]
        own = length * (prompt_length + length)
        if result:
            widest = max(prompt_width, prompt_length)
            cells = (len(result[-1]) + 1) * width * (widest + width)
            if cells <= _MAX_BUCKET_CELLS and cells * (1 - _MAX_PADDING_SHARE) <= needed + own:
                result[-1].append(row)
                needed, prompt_width = needed + own, widest
                continue
        result.append([row])
        needed, width, prompt_width = own, length, prompt_length
    return result


def _whole(prompt_widths: list[int], width: int) -> bool:
    """Whether a bucket's call takes the prompt's queries too and needs no mask; their results are dropped.

    With a prompt not longer than the completion that is less work than a mask, behind which nothing is
    skipped. With a longer one it is more; then a mask is made as long as it is small.
    """
    if len(prompt_widths) > 1:
        return False
    (prompt,) = prompt_widths
    return prompt <= width or width * (prompt + width) > _MOST_MASK_CELLS


def _mask(prompt_widths: list[int], width: int) -> Tensor:
    """[rows or 1, 1, width, widest prompt + width] bool; one row where all prompts are equally long."""
    widest = max(prompt_widths)
    distinct = prompt_widths if len(set(prompt_widths)) > 1 else prompt_widths[:1]
    prompt = torch.arange(widest) < torch.tensor(distinct)[:, None]
    own = torch.ones(width, width, dtype=torch.bool).tril()
    return torch.cat(
        [prompt[:, None].expand(-1, width, -1), own.expand(len(distinct), -1, -1)], dim=2
    ).unsqueeze(1)


def _within(bucket: Bucket, mask: Tensor, window: int) -> Tensor:
    """The bucket's mask without the keys that stand `window` or more positions before the query."""
    own = torch.arange(bucket.width, device=mask.device)
    shared = torch.arange(bucket.prompt_width, device=mask.device)
    prompt_tokens = mask[:, 0, 0, : bucket.prompt_width].sum(-1)
    queries = prompt_tokens[:, None] + own
    keys = torch.cat([shared.expand(len(prompt_tokens), -1), queries], dim=1)
    return mask & (queries[:, None, :, None] - keys[:, None, None, :] < window)
