"""Fused ops on CPU and CUDA. Every op has a plain PyTorch twin in `elastic.reference`."""

from elastic import _extension as _extension  # registers torch.ops.elastic; must come first
