"""One case's random choices, and tensors in the layouts that a caller may hand over."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Draw(Random):
    """Everything random in one case follows from `seed`.

    Attributes:
        small: cases for the CUDA kernels on the CPU, whose threads are fibers.
        generator: torch's random numbers.
    """

    def __init__(self, seed: str, small: bool) -> None:
        super().__init__(seed)
        self.small = small
        self.generator = torch.Generator().manual_seed(self.getrandbits(63))

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, *options: T) -> T:
        return self.choice(options)

    def normal(self, *shape: int) -> Tensor:
        """float64, standard normal."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform_tensor(self, *shape: int) -> Tensor:
        """float64 in [0, 1)."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 in [0, high)."""
        return torch.randint(high, shape, generator=self.generator)

    def vocab(self) -> int:
        """Widths around vectors and blocks, mostly small: a printed case can still be read."""
        rare, usual = ((301, 1_025), (1, 2, 3, 5, 7, 8, 9, 17, 33, 64, 65, 129))
        if not self.small:
            rare = (1_000, 4_096, 4_099, 9_001)
        return self.choice(rare if self.chance(0.06) else usual)


def offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)])


def laid_out(draw: Draw, values: Tensor, strided_rows: bool = True) -> Tensor:
    """The same values, perhaps off every alignment, or with gaps that nobody may read.

    A matrix keeps a last stride of 1, which the ops ask of logits; anything else may get any strides.
    """
    kind = draw.pick("plain", "plain", "offset", "strided")
    if kind == "plain" or values.numel() == 0:
        return values
    gap = draw.randint(1, 5) if kind == "strided" else 0
    start = draw.randint(1, 7)
    if values.dim() == 2 and strided_rows:
        strides: tuple[int, ...] = (values.shape[1] + gap, 1)
    else:
        strides = tuple(s * (1 + gap) for s in values.contiguous().stride())
    needed = start + sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True)) + 1
    garbage = torch.nan if values.is_floating_point() else (True if values.dtype == torch.bool else 99)
    storage = torch.full((needed,), garbage, dtype=values.dtype)
    return storage.as_strided(values.shape, strides, start).copy_(values)


def storage_of(tensor: Tensor) -> Tensor:
    """All elements of the memory behind it, in one dimension."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((size,), (1,), 0)


def copy(tensor: Tensor) -> Tensor:
    """Strides, offset and what lies in the gaps stay."""
    return storage_of(tensor).clone().as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
