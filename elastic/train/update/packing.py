"""Completions packed into one sequence without padding, prompts shared (a tree per prompt).

Models whose attention cannot be given that layout get the same rows padded; `packed_logits` does both.

A group of G completions of one prompt p_0..p_{P-1} becomes ::

    p_0 .. p_{P-2} | p_{P-1} a_0 .. a_{n-2} | p_{P-1} b_0 .. b_{m-2} | ...

The prompt's tokens except the last are there once. Every completion starts with its own copy of the prompt's
last token and drops its own last token, which predicts nothing. So each token behind the prompts predicts one
completion token, in order: the model's last N logits are the wanted ones, no position is gathered twice, and
the backward needs no scatter-add, whose order could vary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic.models.head import LinearHead
from elastic.train.update.layout import TreeLayout
from elastic.train.update.transfer import to_device
from elastic.train.update.tree import is_switched
from elastic.train.update.varlen import VarlenKernel, VarlenLayout


@dataclass(frozen=True)
class PackedBatch:
    """One forward pass.

    Attributes:
        input_ids: [1, M] int64, prompts then completions.
        position_ids: [1, M] int64, each token's position in its own prompt + completion.
        targets: [N] int64, the completions' tokens.
        row_offsets: [R + 1] int64, where each completion starts in ``targets``.
        layout: of the attention.
        rows: of the padded forward: R tensors [P + n - 1] int64 on the CPU, prompt and completion without its
            last token.
        firsts: where in its row the predictor of each completion's first token stands, P - 1.
    """

    input_ids: Tensor
    position_ids: Tensor
    targets: Tensor
    row_offsets: Tensor
    layout: TreeLayout | VarlenLayout
    rows: tuple[Tensor, ...]
    firsts: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """N, completion tokens."""
        return self.targets.numel()


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Tensor],
    prompt_of: Sequence[int],
    device: torch.device | str = "cpu",
    kernel: VarlenKernel | None = None,
) -> PackedBatch:
    """Packs completions with their prompts; only prompts that some completion has are packed.

    Args:
        prompts: token ids, each at least one.
        completions: R tensors [n] int64 on the CPU, each at least one token, unpadded.
        prompt_of: R indices into ``prompts``.
        device: where the model is.
        kernel: attends by lengths; None for SDPA over padded buckets.

    Raises:
        ValueError: lengths that do not match, an empty prompt or an empty completion.
    """
    if len(completions) != len(prompt_of):
        raise ValueError(f"pack: {len(completions)} completions, but prompt_of has {len(prompt_of)} entries")
    if not completions:
        raise ValueError("pack: completions must not be empty")
    used = sorted(set(prompt_of))
    place = {prompt: index for index, prompt in enumerate(used)}
    for prompt in used:
        if not prompts[prompt]:
            raise ValueError(f"pack: prompt {prompt} has no token")
    for row, completion in enumerate(completions):
        if completion.numel() == 0:
            raise ValueError(f"pack: completion {row} has no token")
    lengths = [completion.numel() for completion in completions]
    shared = [len(prompts[prompt]) - 1 for prompt in used]
    ids = {prompt: torch.tensor(prompts[prompt], dtype=torch.int64) for prompt in used}
    pieces: list[Tensor] = [ids[prompt][:-1] for prompt in used]
    positions = [torch.arange(length) for length in shared]
    rows, firsts = [], [len(prompts[prompt]) - 1 for prompt in prompt_of]
    for completion, prompt, first in zip(completions, prompt_of, firsts, strict=True):
        pieces += [ids[prompt][-1:], completion[:-1]]
        positions.append(torch.arange(first, first + completion.numel()))
        rows.append(torch.cat([ids[prompt], completion[:-1]]))
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor(lengths), 0, out=offsets[1:])
    target = torch.device(device)
    tree = (shared, lengths, [place[prompt] for prompt in prompt_of], target)
    return PackedBatch(
        to_device(torch.cat(pieces)[None], target),
        to_device(torch.cat(positions)[None], target),
        to_device(torch.cat(list(completions)), target),
        to_device(offsets, target),
        TreeLayout.build(*tree) if kernel is None else VarlenLayout.build(*tree, kernel),
        tuple(rows),
        tuple(firsts),
    )


def packed_logits(model: nn.Module, packed: PackedBatch) -> Tensor:
    """Logits [N, V] that predict ``packed.targets``, in the model's dtype.

    Call it inside ``with tree_attention_of(model)``, which decides between the packed and the padded forward;
    the block must enclose the backward too.
    """
    if not is_switched(model):
        inputs, index = _padded_inputs(packed)
        padded: Any = model(**inputs)
        return padded.logits.flatten(0, 1).index_select(0, index)
    output: Any = model(**_inputs(packed))
    # A view: indexing would allocate a second [N, V] tensor in the backward pass.
    return output.logits.flatten(0, 1)


def packed_hidden(model: nn.Module, head: LinearHead, packed: PackedBatch) -> Tensor:
    """The hidden states [N, H] that `packed_logits` would give to the head; call it in the same block."""
    if not is_switched(model):
        inputs, index = _padded_inputs(packed)
        return head.hidden(model, **inputs).flatten(0, 1).index_select(0, index)
    return head.hidden(model, **_inputs(packed)).flatten(0, 1)


def _inputs(packed: PackedBatch) -> dict[str, Any]:
    return {
        "input_ids": packed.input_ids,
        "position_ids": packed.position_ids,
        "use_cache": False,
        "logits_to_keep": packed.tokens,
        "tree": packed.layout,
    }


def _padded_inputs(packed: PackedBatch) -> tuple[dict[str, Any], Tensor]:
    """Every row with its own prompt, padded on the right, and where the N predictors are in the output.

    No position ids: some models do not take them, and the others count from 0 by themselves.
    """
    device = packed.targets.device
    ids = nn.utils.rnn.pad_sequence(list(packed.rows), batch_first=True)
    lengths = torch.tensor([row.numel() for row in packed.rows])
    kept = torch.arange(min(packed.firsts), ids.shape[1])  # the columns that any row's completion has
    column = kept[None]
    used = (column >= torch.tensor(packed.firsts)[:, None]) & (column < lengths[:, None])
    inputs = {
        "input_ids": to_device(ids, device),
        "attention_mask": to_device((torch.arange(ids.shape[1]) < lengths[:, None]).long(), device),
        "use_cache": False,
        "logits_to_keep": to_device(kept, device),
    }
    return inputs, to_device(used.flatten().nonzero()[:, 0], device)
