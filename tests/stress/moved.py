"""The inputs of the loss ops in float64: as the op reads them, and moved by a few roundings."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.stress.compare import MOVED, UNIT, compute_dtype
from tests.stress.draw import Draw


class Move:
    """One of three random directions, forth or back, and how far the dtype's roundings may lead."""

    def __init__(self, number: int, back: bool, seed: int, dtype: torch.dtype) -> None:
        self.number, self.back = number, back
        self.generator = torch.Generator().manual_seed(seed)
        self.unit = UNIT[compute_dtype(dtype)]

    def of(self, size: Tensor, ranks: Tensor | None = None) -> Tensor:
        """A few roundings of numbers as large as `size`, up or down; 0 where it is not finite.

        Numbers of a row with the same rank go the same way; the first eight differ in one of the directions.
        """
        up = torch.randint(2, size.shape, generator=self.generator)
        far = 0.5 + torch.rand(size.shape, generator=self.generator, dtype=torch.float64)
        if ranks is not None:
            up = torch.where(ranks < 8, ranks >> self.number & 1, up.gather(1, ranks))
            far = far.gather(1, ranks)
        signs = 1 - 2 * up if self.back else 2 * up - 1
        return torch.where(size.isfinite(), size, 0.0).detach().abs() * far * signs * (MOVED * self.unit)


def moves(draw: Draw, dtype: torch.dtype) -> list[Move]:
    """Three directions, forth and back."""
    seeds = [draw.getrandbits(31) for _ in range(3)]
    return [Move(i, back, seed, dtype) for i, seed in enumerate(seeds) for back in (False, True)]


def ranks_of(logits: Tensor, targets: Tensor) -> Tensor:
    """[N, V] places in the order of a row's values, equal ones alike; the target's is below 8.

    A row's values depend on its likeliest ids and its target most, and equal logits are rounded alike.
    """
    if logits.numel() == 0:
        return torch.zeros(logits.shape, dtype=torch.int64)
    ordered, order = logits.detach().sort(-1, descending=True)
    steps = (ordered.diff(dim=-1) != 0).cumsum(-1)
    ranks = torch.zeros_like(order).scatter(1, order[:, 1:], steps)
    target = ranks.gather(1, targets.clamp(0, logits.shape[1] - 1)[:, None])
    return torch.where((ranks == target) & (target > 7), 7, ranks)


def exact_logits(
    logits: Tensor, unread: Tensor, temperature: float | Tensor, softcap: float | None
) -> Tensor:
    """A float64 leaf with the same softmax: rows that nobody reads are 0, others counted from their maximum.

    What is further below it than the dtype can say is -inf.
    """
    exact = torch.where(unread[:, None], 0.0, logits.double())
    if softcap is not None:  # the slope of tanh at -inf is 0, or what a rounding makes of it
        exact = torch.where(exact == -torch.inf, -1e3 * softcap, exact)
    else:
        highest = exact.amax(-1, keepdim=True)
        exact = exact - torch.where(highest.isfinite(), highest, 0.0)
        too_far = exact / column(temperature) < -torch.finfo(compute_dtype(logits.dtype)).max
        exact = torch.where(too_far, -torch.inf, exact)
    return exact.requires_grad_()


def moved_logits(
    exact: Tensor, targets: Tensor, temperature: float | Tensor, softcap: float | None, move: Move
) -> Tensor:
    """[N, V + 1] logits whose softmax is that of `exact`, capped and moved.

    What an op can know of a logit is its distance to the row's maximum, or the capped value, to a rounding.
    The last column is an id as likely as the sum over the others is uncertain.
    """
    ranks = ranks_of(exact, targets)
    if softcap is None:
        highest = exact.detach().amax(-1, keepdim=True)
        distance = exact - torch.where(highest.isfinite(), highest, 0.0)
        largest = torch.finfo(torch.float64 if move.unit < 2.0**-30 else torch.float32).max
        distance = torch.where(distance / column(temperature) < -largest / 2, -torch.inf, distance)  # in bits
        moved = distance + move.of(distance, ranks)
    else:
        finite = torch.where(exact.isfinite(), exact, 0.0) / softcap
        capped = torch.tanh(exact.detach() / softcap)
        capped = (capped + move.of(capped, ranks)).clamp(-1, 1)
        moved = softcap * (capped + (finite - finite.detach()) * (1 - capped * capped))
    scaled = moved.detach() / column(temperature)
    total = scaled.logsumexp(-1, keepdim=True)
    roundings = 4 * move.unit * (1 + total - scaled.amax(-1, keepdim=True))
    return torch.cat([moved, (total + roundings.log()) * column(temperature)], 1)


def column(temperature: float | Tensor) -> Tensor | float:
    return temperature.double()[:, None] if isinstance(temperature, Tensor) else temperature


def as_float(temperature: float | Tensor) -> float | Tensor:
    return temperature.double() if isinstance(temperature, Tensor) else temperature


def as_read(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A small float tensor as an op reads it beside logits of `dtype`."""
    return tensor.to(compute_dtype(dtype)).double()


def moved_beside(tensor: Tensor, other: Tensor, move: Move) -> Tensor:
    """Logprobs that `other` is subtracted from, or that are subtracted from `other`."""
    size = torch.where(other.isfinite(), other, 0.0).abs() + torch.where(tensor.isfinite(), tensor, 0.0).abs()
    return tensor + move.of(size)
