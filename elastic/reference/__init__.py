"""Every op in plain PyTorch: the readable specification, and the baseline of tests and benches."""

from elastic.reference.loss import GrpoOutput, group_advantage, grpo_loss, token_logprobs

__all__ = ["GrpoOutput", "group_advantage", "grpo_loss", "token_logprobs"]
