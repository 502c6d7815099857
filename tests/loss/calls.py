"""A small good call of each loss op, to change one thing about."""

from typing import Any

import torch

from elastic import ops

N, V, R, H = 6, 37, 2, 4
GOOD: dict[str, dict[str, Any]] = {
    "group_advantage": {"rewards": torch.ones(R), "group_offsets": torch.tensor([0, R])},
    "token_logprobs": {"logits": torch.zeros(N, V), "targets": torch.zeros(N, dtype=torch.int64)},
    "grpo_loss": {
        "logits": torch.zeros(N, V),
        "targets": torch.zeros(N, dtype=torch.int64),
        "old_logprobs": torch.zeros(N),
        "row_offsets": torch.tensor([0, 2, N]),
        "advantages": torch.ones(R),
    },
}
GOOD["linear_grpo_loss"] = {"hidden": torch.zeros(N, H), "weight": torch.zeros(V, H), **GOOD["grpo_loss"]}
del GOOD["linear_grpo_loss"]["logits"]
LOSS_OPS = ("grpo_loss", "linear_grpo_loss")
REWARDS = {"advantages": None, "rewards": torch.ones(R), "group_offsets": torch.tensor([0, R])}
META = {"device": "meta"}


def call(op: str, changes: dict[str, Any]) -> Any:
    return getattr(ops, op)(**{**GOOD[op], **changes})
