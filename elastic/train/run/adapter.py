"""The adapter that a run trains: its own, or the one that its model has."""

from typing import Any

import torch

from elastic.models.adapter import add_lora, check_trainable, has_adapter
from elastic.models.adapter_merge import merge_obstacle
from elastic.train.collect.seeds import RandomStream, derive
from elastic.train.config import TrainConfig


def with_adapter(model: Any, config: TrainConfig) -> Any:
    """The model to train: with the LoRA of ``[adapter]`` around it, or as it is.

    Raises:
        ValueError: an adapter for a model that has one; one that cannot be trained, or not merged where
            ``[adapter]`` asks for it; or keys that need an adapter without one.
    """
    chosen = config.adapter
    if getattr(model, "_hf_peft_config_loaded", False) and not has_adapter(model):
        raise ValueError(
            "model: has an adapter added by transformers (add_adapter); give the PeftModel of "
            "peft.get_peft_model instead"
        )
    if chosen.rank and has_adapter(model):
        raise ValueError(
            f"adapter.rank: must be 0 for a model that has an adapter already, got {chosen.rank}; it is "
            "trained further"
        )
    model = with_new_adapter(model, config)
    merged = {"adapter.merge": chosen.merge, "adapter.rollouts": chosen.rollouts == "merged"}
    if not has_adapter(model):
        for key in (key for key, is_set in merged.items() if is_set):
            raise ValueError(f"{key}: there is no adapter to merge; set adapter.rank, or give a PeftModel")
        return model
    check_trainable(model)
    obstacle = merge_obstacle(model)
    for key, is_set in (merged | {"rollout.engine": config.rollout.engine == "vllm"}).items():
        if is_set and obstacle:
            raise ValueError(f"{key}: the model cannot be merged with its adapter: {obstacle}")
    return model


def with_new_adapter(model: Any, config: TrainConfig) -> Any:
    """The LoRA of ``[adapter]`` around a model, drawn from the run's seed; the model where its rank is 0."""
    chosen = config.adapter
    if not chosen.rank:
        return model
    return add_lora(
        model,
        rank=chosen.rank,
        alpha=chosen.alpha,
        target_modules=chosen.target_modules,
        use_rslora=chosen.use_rslora,
        dtype=getattr(torch, chosen.dtype),
        seed=derive(config.train.seed, RandomStream.ADAPTER),
    )
