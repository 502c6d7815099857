"""Fused ops on CPU and CUDA. Every op has a plain PyTorch twin in `elastic.reference`."""

from elastic import _extension as _extension  # registers torch.ops.elastic; must come first
from elastic.ops.advantage import group_advantage
from elastic.ops.logprobs import token_logprobs
from elastic.ops.loss import GrpoOutput, grpo_loss

__all__ = ["GrpoOutput", "group_advantage", "grpo_loss", "token_logprobs"]
