"""Copies to the model's device that the host does not wait for."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; behind the work that was queued there, while the host goes on.

    A copy to a GPU out of ordinary memory would make the host wait until the GPU has done all that came
    before: behind a micro-batch's backward pass nothing would be queued when the next one begins. So it goes
    out of pinned memory, which torch keeps for the next copy.

    Args:
        tensor: on the CPU, not written to afterwards.
        device: the CPU, which gives the tensor itself, or another one.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
