"""How much of a GPU's memory a step takes."""

import torch


def forget_peak(device: torch.device) -> None:
    """Begins to measure anew; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> dict[str, float]:
    """``peak_memory_gb``: most bytes of tensors at a time since then, in 10^9; no metric on a CPU."""
    if device.type != "cuda":
        return {}
    return {"peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}
