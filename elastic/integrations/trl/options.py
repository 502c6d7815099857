"""What of a GRPOConfig the fused losses can do, and under which names."""

from __future__ import annotations

from typing import Any

_CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo")
LOSSES = (*_CLIPPED, "cispo", "sapo")
_GRPO = {"token": "grpo", "sequence": "gspo"}  # by importance_sampling_level


def check_config(args: Any) -> None:
    """Refuses what `ElasticGRPOTrainer` cannot do as TRL does it.

    Args:
        args: a GRPOConfig.

    Raises:
        ValueError: naming the argument, its value and what is supported.
    """
    if args.loss_type not in LOSSES:
        raise ValueError(
            f"loss_type: expected one of {', '.join(LOSSES)}, got {args.loss_type!r}, which the fused losses "
            "do not have"
        )
    if args.importance_sampling_level == "sequence" and args.loss_type != "grpo":
        raise ValueError(
            "importance_sampling_level: 'sequence' needs loss_type='grpo', as in GSPO's paper, got "
            f"loss_type={args.loss_type!r}"
        )
    if args.entropy_coef != 0 or args.use_adaptive_entropy:
        raise ValueError(
            f"entropy_coef, use_adaptive_entropy: expected 0 and False, got {args.entropy_coef} and "
            f"{args.use_adaptive_entropy}: the fused losses aggregate an entropy bonus as the loss, TRL does "
            "it over tokens"
        )
    if args.use_liger_kernel:
        raise ValueError("use_liger_kernel: expected False, got True: the loss is fused already")


def check_trainer(trainer: Any) -> None:
    """Refuses models, and ways of running them, that `ElasticGRPOTrainer` was not made for.

    Raises:
        ValueError: saying which.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "ElasticGRPOTrainer needs whole parameters in each process, got FSDP or DeepSpeed; use "
            "GRPOTrainer with elastic_rollout_func and a vLLM server, which has the same budgets"
        )
    if trainer._is_vlm:
        raise ValueError("processing_class: expected a tokenizer, got a processor of images")
    if trainer.aux_loss_enabled:
        raise ValueError(
            "router_aux_loss_coef: expected 0, got "
            f"{trainer.router_aux_loss_coef}: the load-balancing loss is not supported"
        )


def loss_options(trainer: Any, mode: str, rows: int) -> dict[str, Any]:
    """The keywords of `elastic.ops.grpo_loss` for a trainer's own arguments, but tensors and `num_tokens`.

    Args:
        trainer: an ElasticGRPOTrainer.
        mode: "train" or "eval".
        rows: of this micro-batch.
    """
    args, loss = trainer.args, trainer.loss_type
    options: dict[str, Any] = {
        # The op's bnpo divides by the tokens of one call; divided by `token_divisor` it is dapo.
        "loss": {"bnpo": "dapo", "grpo": _GRPO[trainer.importance_sampling_level]}.get(loss, loss),
        "num_rows": rows * micro_batches(trainer, mode),
    }
    if loss in _CLIPPED:
        options |= {"clip_low": trainer.epsilon_low, "clip_high": trainer.epsilon_high, "delta": args.delta}
    elif loss == "cispo":
        options["clip_high"] = trainer.epsilon_high
    else:
        options |= {"tau_positive": args.sapo_temperature_pos, "tau_negative": args.sapo_temperature_neg}
    if loss == "dr_grpo":
        options["max_length"] = trainer.max_completion_length
    if trainer.beta != 0:
        options |= {"kl_coef": trainer.beta, "kl_weighted": args.use_bias_correction_kl}
    return options


def token_divisor(trainer: Any, mode: str, loss_tokens: float, generation_tokens: float) -> float:
    """What TRL divides the sum over tokens by, for bnpo, dapo and cispo; 1 for losses that average rows.

    Args:
        trainer: an ElasticGRPOTrainer.
        mode: "train" or "eval".
        loss_tokens: unmasked ones of this micro-batch.
        generation_tokens: unmasked ones of the whole generation, over all processes.
    """
    if trainer.loss_type == "bnpo":
        return max(loss_tokens, 1) * micro_batches(trainer, mode)
    if trainer.loss_type not in ("dapo", "cispo"):
        return 1
    share = max(generation_tokens, 1) / trainer.accelerator.num_processes
    if mode == "eval":
        return share
    return share * micro_batches(trainer, mode) / trainer.args.steps_per_generation


def micro_batches(trainer: Any, mode: str) -> int:
    """Micro-batches of an optimizer step; an evaluation has no steps."""
    return int(trainer.current_gradient_accumulation_steps) if mode == "train" else 1
