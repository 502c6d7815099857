"""Factors of the policy terms that TRL makes beside the ratio; the KL and the denominators have none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from elastic.integrations.trl.packed import PackedTokens
from elastic.integrations.trl.states import TokenStatistics


def needs_current(trainer: Any, inputs: dict[str, Any]) -> bool:
    """Whether the loss needs logprobs or entropies of the current weights beforehand."""
    return (
        inputs.get("old_per_token_logps") is None  # rollouts are of these weights: the ratio is 1
        or trainer.top_entropy_quantile < 1
        or trainer.off_policy_mask_threshold is not None
    )


def old_logprobs(inputs: dict[str, Any], tokens: PackedTokens, current: TokenStatistics | None) -> Tensor:
    """[N] logprobs that the ratio is taken against: TRL's, or those of the current weights."""
    given = inputs.get("old_per_token_logps")
    if given is not None:
        return tokens.pack(given)
    assert current is not None  # `needs_current` asked for them
    return current.logprobs


def policy_weights(
    trainer: Any, inputs: dict[str, Any], tokens: PackedTokens, current: TokenStatistics | None
) -> Tensor | None:
    """The product of importance weights, the mask of high entropy and the off-policy mask.

    Args:
        trainer: an ElasticGRPOTrainer.
        inputs: of its loss.
        tokens: the same, packed.
        current: where `needs_current` says so.

    Returns:
        [N] float32, or None where there is no factor.
    """
    factors = []
    if trainer.use_vllm and trainer.vllm_importance_sampling_correction:
        factors.append(inputs["importance_sampling_ratio"])
    if current is not None and trainer.top_entropy_quantile < 1:
        entropies = tokens.unpack(current.entropy)
        least = 1 - trainer.top_entropy_quantile
        factors.append(trainer.get_high_entropy_mask(entropies, tokens.mask, least))
    if current is not None and trainer.off_policy_mask_threshold is not None:
        logprobs = tokens.unpack(current.logprobs)
        sampling = inputs.get("sampling_per_token_logps", inputs.get("old_per_token_logps", logprobs))
        factors.append(
            trainer.get_off_policy_mask(
                *(inputs["advantages"][:, None], logprobs, sampling, tokens.mask.float()),
                trainer.off_policy_mask_threshold,
            )
        )
    product = None
    for factor in factors:
        packed = tokens.pack(factor.float())
        product = packed if product is None else product * packed
    return product
