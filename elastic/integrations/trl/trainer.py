"""GRPOTrainer with the fused loss: TRL's values and gradients, without its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from elastic.integrations.trl.metrics import log_loss_metrics
from elastic.integrations.trl.options import check_config, check_trainer, loss_options, token_divisor
from elastic.integrations.trl.packed import PackedTokens
from elastic.integrations.trl.rollout import Rollout
from elastic.integrations.trl.states import States
from elastic.integrations.trl.weights import needs_current, old_logprobs, policy_weights
from elastic.models.head import LinearHead


class ElasticGRPOTrainer(GRPOTrainer):
    """A GRPOTrainer whose loss is `elastic.ops.linear_grpo_loss` on packed tokens.

    Takes GRPOTrainer's arguments, of which `elastic_rollout_func` as `rollout_func` makes rollouts under
    budgets. Loss, gradients and metrics are TRL's; generation, rewards, advantages, reference and logging are
    TRL's code. The head is applied to the tokens that carry loss, a chunk at a time, and its logits are never
    kept; where it is no plain linear layer, `elastic.ops.grpo_loss` takes the model's own logits. Where
    rollouts are of the current weights (TRL computes no old logprobs then), one more product with the head
    finds the logprobs that the ratio is taken against.

    Raises:
        ImportError: TRL is missing, or another version than was tested.
        ValueError: a loss or an option that the fused losses do not have, or a model or a way of running it
            that was not tested; naming the argument.
    """

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: Any = None, *others: Any, **named: Any
    ) -> None:
        if args is not None:
            check_config(args)
            if isinstance(named.get("rollout_func"), Rollout):
                named["rollout_func"].check_config(args)
        super().__init__(model, reward_funcs, args, *others, **named)
        check_trainer(self)
        self._head = LinearHead.of(self.accelerator.unwrap_model(self.model))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        mode = "train" if model.training else "eval"
        tokens = PackedTokens.of(inputs)
        with self.accelerator.autocast():
            states = self._states(model, inputs, tokens)
            current = states.logprobs(tokens.targets) if needs_current(self, inputs) else None
            old = old_logprobs(inputs, tokens, current)
            divisor = token_divisor(self, mode, len(tokens), float(inputs["num_items_in_batch"]))
            num_tokens = max(1, int(divisor))
            options = loss_options(self, mode, len(tokens.mask))
            if (weights := policy_weights(self, inputs, tokens, current)) is not None:
                # The op's weight of a policy term is exp(old - engine): no KL and no denominator has it.
                options |= {"engine_logprobs": old - weights.log(), "engine_high": float("inf")}
            if self.beta != 0:
                options["ref_logprobs"] = tokens.pack(inputs["ref_per_token_logps"])
            output = states.loss(
                *(tokens.targets, old, tokens.row_offsets, inputs["advantages"]),
                **options,
                num_tokens=num_tokens,
            )
        log_loss_metrics(self, mode, inputs, tokens, output, old)
        return output.loss * (num_tokens / divisor)

    def _states(self, model: Any, inputs: dict[str, Any], tokens: PackedTokens) -> States:
        forward = {
            "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
            "attention_mask": torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            "logits_to_keep": tokens.mask.shape[1] + 1,
            "use_cache": False,
        }
        head = self._head
        values = model(**forward).logits if head is None else head.hidden(model, **forward)
        return States(values[:, :-1][tokens.mask], head, self.temperature)
