"""What an update takes besides what is always there: activations, and the logits of the loss.

H hidden size, M packed tokens of a micro-batch, N of them completion tokens, V vocabulary.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from elastic.models.head import LinearHead
from elastic.models.modes import as_in_rollouts
from elastic.models.offload import Offload
from elastic.train.config.updates import LossConfig
from elastic.train.planning.peak import PeakMemory
from elastic.train.update.packing import PackedBatch, pack, packed_hidden
from elastic.train.update.tree import switched

_ROWS = 16  # run at most


class Body(NamedTuple):
    """What forward and backward of a micro-batch take between embedding and head, in bytes.

    Attributes:
        most: at a time.
        saved: between the two, when the loss is computed.
        host: of the host's memory then; 0 unless activations are offloaded.
    """

    most: int
    saved: int
    host: int


def activation_bytes(
    model: Any, tokens: int, prompt: int, row: int, mixed: bool, offload: Offload | None = None
) -> Body:
    """What a micro-batch takes between embedding and head.

    The trainer's own forward over packed rows is run, with rows of full length but the last. Where they are
    more than `_ROWS`, a row takes what the last ones of these took. Temporaries of the backward and, in
    mixed precision, the 16-bit copies of the weights are in it.

    Args:
        model: the trained model, of fake or real tensors on the CPU, in the block of its mode.
        tokens: M.
        prompt: tokens of a prompt.
        row: tokens of a completion.
        mixed: whether the forward runs under autocast to bfloat16.
        offload: what moves the model's activations; None for nothing.
    """
    rows = max(1, -(-(tokens - prompt) // row))
    if rows <= _ROWS:
        last = max(1, tokens - prompt - (rows - 1) * row)
        return body_bytes(model, _batch(prompt, [row] * (rows - 1) + [last]), mixed, offload)
    some, most = (
        body_bytes(model, _batch(prompt, [row] * count), mixed, offload) for count in (_ROWS // 2, _ROWS)
    )
    further = (rows - _ROWS) / (_ROWS - _ROWS // 2)
    return Body(*(round(b + (b - a) * further) for a, b in zip(some, most, strict=True)))


def body_bytes(model: Any, batch: PackedBatch, mixed: bool, offload: Offload | None = None) -> Body:
    """Forward and backward of the model without its head; gradients are there before.

    Args:
        model: on the CPU. Its gradients are overwritten.
        batch: on the CPU.
        mixed: as above.
        offload: as above.
    """
    offload = offload or Offload()
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    known = [*parameters, *model.buffers(), *(parameter.grad for parameter in parameters)]
    head = LinearHead(model.get_output_embeddings(), None)
    with switched(model), as_in_rollouts(model), PeakMemory(known, lambda: offload.host_bytes) as memory:
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            hidden = packed_hidden(model, head, batch)
        saved, host = memory.now(), offload.host_bytes
        hidden.sum().backward()
    for parameter in parameters:
        parameter.grad = None
    return Body(memory.peak, saved, host)


def loss_bytes(
    config: LossConfig,
    tokens: int,
    vocab: int,
    hidden: int,
    width: int,
    head_trained: bool = True,
    mixed: bool = False,
) -> int:
    """What the loss of a micro-batch takes (`elastic.ops.linear_grpo_loss`, or `grpo_loss` over all logits).

    Args:
        config: says whether logits are made in chunks.
        tokens: N.
        vocab: V.
        hidden: H.
        width: bytes of a logit: 2 in mixed precision, else 4.
        head_trained: whether the head's weight gets a gradient; below an adapter it does not.
        mixed: whether the weights are wider than that.
    """
    chunks = config.linear == "on" or (config.linear == "auto" and vocab > hidden)
    # Without a number the op fits its chunk into what is free; the usual one is what it should find.
    held = min(tokens, config.linear_chunk_tokens or 4096) if chunks else tokens
    head = vocab if head_trained else 0
    # All logits are widened for the loss, and their gradient is narrowed again.
    logits = held * vocab * (4 + width if mixed and not chunks else width)
    gradients = (tokens + head) * hidden * width
    # The head's gradient is summed in float32 over 16-bit chunks.
    sums = head * hidden * 4 if width < 4 and held < tokens else 0
    return logits + gradients + sums


def _batch(prompt: int, rows: list[int]) -> PackedBatch:
    with unset_fake_temporarily():
        completions = [torch.zeros(row, dtype=torch.int64) for row in rows]
        return pack([[0] * prompt], completions, [0] * len(rows))
