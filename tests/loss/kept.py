"""Kept sets for the loss tests."""

import torch
from torch import Tensor


def kept_of(sets: list[list[int]]) -> dict[str, Tensor]:
    """The arguments `kept_ids` and `kept_offsets` of these sets, one a token."""
    sizes = torch.tensor([0, *(len(ids) for ids in sets)])
    flat = [i for ids in sets for i in ids]
    return {"kept_ids": torch.tensor(flat, dtype=torch.int32), "kept_offsets": sizes.cumsum(0)}


def random_sets(targets: Tensor, vocab: int, seed: int = 0) -> dict[str, Tensor]:
    """Sets of 1 to 100 ids with the target among them, and every fourth token without one."""
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for token, target in enumerate(targets.tolist()):
        size = int(torch.randint(1, min(100, vocab) + 1, (), generator=generator))
        others = torch.randperm(vocab, generator=generator)[: size - 1].tolist()
        sets.append([] if token % 4 == 3 else sorted({target, *others}))
    return kept_of(sets)
