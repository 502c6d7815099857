"""How many CPU threads a forward pass is worth.

A decode step of a tiny model takes microseconds per layer: waking a second OpenMP thread and waiting for it
costs more than it gains. Besides, on a busy machine threads that wait actively, which is OpenMP's default,
take the core from the thread they wait for: measured, one training forward and backward took 3.4 s instead of
0.82 s, and decoding up to 60 times as long. With ``OMP_WAIT_POLICY=PASSIVE`` two threads did it in 0.82 s.
The variable only works when set before torch is loaded; the `elastic` command does that.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

# Multiply-adds of a forward pass that are worth one more thread, about 10 ms of one core.
_WORK_PER_THREAD = 500_000_000
# Below this many parameters threads that wait actively can slow a pass several times on a busy machine.
_SMALL_MODEL_PARAMETERS = 8_000_000


def recommended_threads(model: nn.Module, tokens: int = 1) -> int:
    """Intra-op threads for passes of `tokens` tokens through `model` on this machine, at least 1.

    ``OMP_NUM_THREADS``, where set, has the last word. A model on an accelerator needs one thread, which
    launches kernels. A small model gets more than one only under ``OMP_WAIT_POLICY=PASSIVE``.

    Args:
        model: its parameters are counted.
        tokens: of one forward pass: rows decoded together, or packed tokens of a training pass.
    """
    own = os.environ.get("OMP_NUM_THREADS", "")
    if own.isdecimal() and int(own) > 0:
        return int(own)
    if any(tensor.device.type != "cpu" for tensor in chain(model.parameters(), model.buffers())):
        return 1
    parameters = sum(parameter.numel() for parameter in model.parameters())
    passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    if parameters < _SMALL_MODEL_PARAMETERS and not passive:
        return 1
    return max(1, min(available_cores(), parameters * tokens // _WORK_PER_THREAD))


def available_cores() -> int:
    """Cores this process may run on, as far as its affinity tells; container quotas are not seen."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def threads_for(model: nn.Module, tokens: int = 1) -> Iterator[int]:
    """Runs a block with `recommended_threads` intra-op threads, then restores the previous count."""
    before = torch.get_num_threads()
    count = recommended_threads(model, tokens)
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
