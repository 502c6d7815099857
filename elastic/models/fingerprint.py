"""Digests of data and weights, by which something is known to be what it was."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

_SAMPLED_VALUES = 256  # of each tensor: hashing a model of 7 billion weights whole would take a minute


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of a sequence of byte strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))  # else ("a", "bc") and ("ab", "c") would be the same
        sha.update(part)
    return sha.hexdigest()


def weights_digest(tensors: Iterable[tuple[str, Tensor]], rounded: torch.dtype | None = None) -> str:
    """Of names, shapes and evenly spaced values.

    Args:
        tensors: of any dtype; equal values give equal digests.
        rounded: the dtype that values are rounded to first; None for none.
    """

    def parts() -> Iterable[bytes]:
        for name, weight in tensors:
            flat = weight.detach().flatten()
            count = min(_SAMPLED_VALUES, flat.numel())
            index = torch.linspace(0, max(flat.numel() - 1, 0), count, dtype=torch.float64).long()
            values = flat[index.to(flat.device)]
            values = (values if rounded is None else values.to(rounded)).double().cpu()
            yield from (name.encode(), str(tuple(weight.shape)).encode(), values.numpy().tobytes())

    return digest(parts())
