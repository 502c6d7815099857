"""The table of a training configuration that says what is learned from rollouts."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from elastic.train.config.schema import Section, limited

Loss = Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"]
Advantage = Literal["group", "none", "batch", "rloo", "maxrl", "passk"]


@dataclass(frozen=True)
class LossConfig(Section):
    """``[loss]``: SPEC section 5.

    Attributes:
        loss: the loss's name in `elastic.ops.grpo_loss`.
        advantage: the kind's name in `elastic.ops.group_advantage`.
        advantage_eps: added to the standard deviation by ``group`` and ``batch``.
        pass_k: the k of ``passk``.
        clip_low: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        clip_high: see ``clip_low``; cispo bounds the ratio itself by it, so it needs 1 or more, say 5.
        delta: bound of the unclipped ratio; absent for none.
        dual_clip: bound of the loss where the advantage is negative, as a multiple of it; absent for none.
        tau_positive: sapo's temperature at positive advantages.
        tau_negative: and at negative ones.
        kl: estimator; ``k1`` needs ``kl_weighted``: without it its gradient does not depend on the reference.
        kl_weighted: multiply the KL by the importance ratio.
        kl_coef: weight of the KL to the starting model; a frozen copy is kept only above 0.
        entropy_coef: weight of the entropy bonus.
        max_length: L_max of dr_grpo; absent for the most tokens a row's budget allows.
        mask_cut_solutions: leave rows whose solution was cut out of the loss. The paper trains on them.
        old_logprobs: ``rollout`` takes those of the rollout, ``recompute`` runs a forward before the update.
        engine_correction: importance weights of the recomputed against the rollout's logprobs: ``truncate``
            cuts them to [engine_low, engine_high], ``mask`` drops tokens outside.
        engine_level: one weight per ``token`` or per ``row``.
        engine_low: see ``engine_correction``.
        engine_high: see ``engine_correction``.
        linear: compute the loss from hidden states and the head, in chunks of tokens, so that memory need not
            hold [N, V] logits. ``auto``: where the head is a plain linear layer, its logits at most
            soft-capped, and V is above H, so that memory is saved. ``on`` refuses models of another kind. The
            trained weights are those of ``off`` up to rounding.
        linear_chunk_tokens: tokens per chunk; memory holds the logits of one chunk. Absent: 4096; on a GPU
            all, or as many as a quarter of the free memory holds.
        skip_zero_advantage: rows whose gradient is exactly zero are not run through the model. Weights
            are the same up to rounding; entropy and clip fraction then cover the rows that were run.
    """

    TABLE: ClassVar[str] = "loss"

    loss: Loss = "dapo"
    advantage: Advantage = "group"
    advantage_eps: float = limited(1e-4, low=0)
    pass_k: int = limited(4, low=1)
    clip_low: float = limited(0.2, low=0, high=1)
    clip_high: float = limited(0.2, low=0)
    delta: float | None = limited(None, above=1)
    dual_clip: float | None = limited(None, above=1)
    tau_positive: float = limited(1.0, above=0)
    tau_negative: float = limited(1.05, above=0)
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_weighted: bool = False
    kl_coef: float = limited(0.0, low=0)
    entropy_coef: float = limited(0.0, low=0)
    max_length: int | None = limited(None, low=1)
    mask_cut_solutions: bool = False
    old_logprobs: Literal["rollout", "recompute"] = "rollout"
    engine_correction: Literal["none", "truncate", "mask"] = "none"
    engine_level: Literal["token", "row"] = "token"
    engine_low: float = limited(0.0, low=0)
    engine_high: float = limited(2.0, above=0)
    linear: Literal["auto", "on", "off"] = "auto"
    linear_chunk_tokens: int | None = limited(None, low=1)
    skip_zero_advantage: bool = True

    def check(self) -> None:
        if self.kl_coef > 0 and self.kl == "k1" and not self.kl_weighted:
            raise ValueError(
                "loss.kl: 'k1' without loss.kl_weighted regularises nothing: the gradient of log p - log ref "
                "is that of log p, the same for every reference and 0 on average; set loss.kl_weighted "
                "= true or take 'k2' or 'k3'"
            )
        if self.loss == "cispo" and self.clip_high < 1:
            raise ValueError(
                "loss.clip_high: must be at least 1 with loss.loss = 'cispo', which bounds the ratio itself, "
                f"got {self.clip_high:g}: it would be every token's weight; 5 is usual"
            )
        if self.engine_correction != "none" and self.old_logprobs == "rollout":
            raise ValueError(
                "loss.engine_correction: needs loss.old_logprobs = 'recompute', to compare with the rollout's"
            )
        if self.engine_low > self.engine_high:
            raise ValueError(
                f"loss.engine_low: must be at most loss.engine_high = {self.engine_high}, "
                f"got {self.engine_low}"
            )
