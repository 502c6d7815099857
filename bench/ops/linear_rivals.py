"""Other ways from hidden states and the head to a loss, each a function of both with gradients."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.harness.case import CHUNKED_CROSS_ENTROPY, Variant
from bench.harness.device import Device
from bench.ops.inputs import COMPLETIONS, HIGH, LOW, Inputs, clipped_loss, eager_logprobs

TRL_CHUNK = 32_768  # ids a tile, TRL's own
QUACK_CHUNK = 4096  # tokens, quack's own
QUACK_S = 60.0  # that quack takes to compile and tune its products
SCALED_CE = "Liger scaled cross-entropy"
QUACK = "quack cross-entropy"  # of equal weights: it takes none

Loss = Callable[[Tensor, Tensor], Tensor]
Differentiate = Callable[[Loss], Callable[[int], object]]


def rivals(
    device: Device, batch: Inputs, chunk: int, differentiate: Differentiate, check: Callable[[object], None]
) -> list[Variant]:
    """Libraries and plain torch.

    Args:
        chunk: tokens that the checkpointed way takes at a time.
        differentiate: makes a timed call of a loss.
        check: of loss and both gradients.
    """

    def way(name: str, make: Callable[[], Loss], *needs: str) -> Variant:
        return Variant(name, lambda: differentiate(make()), check, needs=needs)

    cutlass = ("nvidia-cutlass-dsl",) if device.is_cuda else ()
    quack = Variant(
        QUACK, lambda: differentiate(quack_loss(batch)), needs=("quack-kernels",), takes_s=QUACK_S
    )
    found = [
        way("torch linear_cross_entropy", lambda: torch_loss(batch), CHUNKED_CROSS_ENTROPY),
        way("TRL chunked head", lambda: trl_loss(batch), "trl"),
        way(SCALED_CE, lambda: liger_scaled_loss(batch), "liger-kernel", *cutlass),
        quack,
        way("checkpointed chunks", lambda: checkpointed(batch, chunk)),
    ]
    if len(batch.targets) % COMPLETIONS == 0:
        found.append(way("liger-kernel", lambda: liger_loss(batch, compiled=device.is_cuda), "liger-kernel"))
    return found


def checkpointed(batch: Inputs, chunk: int) -> Loss:
    """Eager a chunk of tokens at a time, whose logits are computed again in the backward: four products."""

    def part(hidden: Tensor, weight: Tensor, at: slice) -> Tensor:
        logprobs, _ = eager_logprobs(hidden @ weight.T, batch.targets[at])
        return clipped_loss(logprobs, batch.old_logprobs[at], batch.advantage[at], batch.weight[at])

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        spans = [slice(first, first + chunk) for first in range(0, len(hidden), chunk)]
        parts = [checkpoint(part, hidden[at], weight, at, use_reentrant=False) for at in spans]
        return torch.stack(parts).sum()

    return loss


def torch_loss(batch: Inputs) -> Loss:
    """torch's chunked cross-entropy, whose per-token loss is the negative logprob."""
    options = torch.nn.LinearCrossEntropyOptions()

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        nll = F.linear_cross_entropy(hidden, weight, batch.targets, reduction="none", options=options)
        return clipped_loss(-nll.float(), batch.old_logprobs, batch.advantage, batch.weight)

    return loss


def trl_loss(batch: Inputs) -> Loss:
    """TRL's chunked logprob head, as its GRPO trainer calls it but without the entropy."""
    from trl.kernels import ChunkedLogProbFunction

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        logprobs = ChunkedLogProbFunction.apply(
            hidden, weight, None, batch.targets, 1.0, TRL_CHUNK, None, 1.0, ()
        )[0]
        return clipped_loss(logprobs, batch.old_logprobs, batch.advantage, batch.weight)

    return loss


def liger_scaled_loss(batch: Inputs) -> Loss:
    """liger-kernel's per-token cross-entropy of a head, on Hopper with kernels of its own: four products."""
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        nll = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, batch.targets)
        nll = nll[0] if isinstance(nll, tuple) else nll
        return clipped_loss(-nll.float(), batch.old_logprobs, batch.advantage, batch.weight)

    return loss


def quack_loss(batch: Inputs) -> Loss:
    """quack's chunked cross-entropy: the same products, but the loss is the plain sum over tokens."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        return chunked_linear_cross_entropy(
            hidden, weight, batch.targets, chunk_size=QUACK_CHUNK, reduction="sum"
        )

    return loss


def liger_loss(batch: Inputs, compiled: bool) -> Loss:
    """liger-kernel's fused linear loss, a completion at a time."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    module = LigerFusedLinearGRPOLoss(
        beta=0.0,
        compiled=compiled,
        use_ref_model=False,
        epsilon_low=1 - LOW,
        epsilon_high=HIGH - 1,
        loss_type="grpo",
    )
    targets, old = batch.targets.view(COMPLETIONS, -1), batch.old_logprobs.view(COMPLETIONS, -1)
    mask = torch.ones_like(targets)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        rows = hidden.view(COMPLETIONS, -1, hidden.shape[-1])
        return module(rows, weight, targets, mask, batch.advantages, old_per_token_logps=old)[0]

    return loss
