"""What an update takes besides what is always there: activations, and the logits of the loss.

H hidden size, M packed tokens of a micro-batch, N of them completion tokens, V vocabulary.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from elastic.models.head import LinearHead
from elastic.models.modes import as_in_rollouts
from elastic.train.config.updates import LossConfig
from elastic.train.planning.peak import PeakMemory
from elastic.train.update.packing import PackedBatch, pack, packed_hidden
from elastic.train.update.tree import switched

_ROWS = 16  # run at most


def activation_bytes(model: Any, tokens: int, prompt: int, row: int, mixed: bool) -> int:
    """The most that forward and backward of a micro-batch take between embedding and head.

    The trainer's own forward over packed rows is run, with rows of full length for all the tokens. Where they
    are more than `_ROWS`, a row takes what the last ones of these took. Temporaries of the backward and, in
    mixed precision, the 16-bit copies of the weights are in it.

    Args:
        model: the trained model, of fake or real tensors on the CPU, in the block of its mode.
        tokens: M.
        prompt: tokens of a prompt.
        row: tokens of a completion.
        mixed: whether the forward runs under autocast to bfloat16.
    """
    rows = max(1, -(-(tokens - prompt + 1) // row))
    if rows <= _ROWS:
        return body_peak(model, _batch(prompt, row, rows), mixed)
    some, most = (body_peak(model, _batch(prompt, row, count), mixed) for count in (_ROWS // 2, _ROWS))
    return round(most + (most - some) / (_ROWS - _ROWS // 2) * (rows - _ROWS))


def body_peak(model: Any, batch: PackedBatch, mixed: bool) -> int:
    """Most bytes at a time in forward and backward of the model without its head; gradients are there before.

    Args:
        model: on the CPU. Its gradients are overwritten.
        batch: on the CPU.
        mixed: as above.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    known = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in parameters)]
    head = LinearHead(model.get_output_embeddings(), None)
    with switched(model), as_in_rollouts(model), PeakMemory(known) as memory:
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            hidden = packed_hidden(model, head, batch)
        hidden.sum().backward()
    for parameter in parameters:
        parameter.grad = None
    return memory.peak


def loss_bytes(
    config: LossConfig, tokens: int, vocab: int, hidden: int, width: int, head_trained: bool = True
) -> int:
    """What the loss of a micro-batch takes (`elastic.ops.linear_grpo_loss`, or `grpo_loss` over all logits).

    Args:
        config: says whether logits are made in chunks.
        tokens: N.
        vocab: V.
        hidden: H.
        width: bytes of a logit: 2 in mixed precision, else 4.
        head_trained: whether the head's weight gets a gradient; below an adapter it does not.
    """
    chunks = config.linear == "on" or (config.linear == "auto" and vocab > hidden)
    # Without a number the op fits its chunk into what is free; the usual one is what it should find.
    held = min(tokens, config.linear_chunk_tokens or 4096) if chunks else tokens
    head = vocab if head_trained else 0
    logits, gradients = held * vocab * width, (tokens + head) * hidden * width
    # The head's gradient is summed in float32 over 16-bit chunks.
    sums = head * hidden * 4 if width < 4 and held < tokens else 0
    return logits + gradients + sums


def _batch(prompt: int, row: int, rows: int) -> PackedBatch:
    with unset_fake_temporarily():
        return pack([[0] * prompt], [torch.zeros(row, dtype=torch.int64)] * rows, [0] * rows)
