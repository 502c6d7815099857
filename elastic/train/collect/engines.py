"""What decodes a training's rollouts, and how it gets the weights of now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from elastic.budget.markers import Markers
from elastic.integrations.vllm.engine import VLLMEngine
from elastic.models.adapter import has_adapter
from elastic.models.rollout_model import RolloutModel
from elastic.rollout import RolloutEngine
from elastic.train.collect.first_rank import FirstRankEngine
from elastic.train.collect.rescue import batch_of_failure
from elastic.train.config import TrainConfig

Engine = RolloutEngine | VLLMEngine | FirstRankEngine


def open_engine(
    config: TrainConfig, model: Any, tokenizer: Any, markers: Markers, accelerator: Any, shards: bool = False
) -> tuple[Engine, Callable[[], None]]:
    """An engine over the trained model.

    Args:
        config: of the run.
        model: the trained model, on its device, still whole.
        tokenizer: its tokenizer.
        markers: of thinking.
        accelerator: knows the processes.
        shards: whether they will hold parts of the model.

    Returns:
        The engine, and what must be called before it decodes with weights that have changed.

    Raises:
        ValueError: an engine that cannot be used, naming the key; or what the engine refuses.
    """
    rollout, mixed, processes = config.rollout, config.train.mixed_precision, accelerator.num_processes
    if rollout.engine == "own":
        one = rollout.ranks == "first" and processes > 1
        decodes = accelerator.is_main_process or not one
        weights = RolloutModel(model, mixed, config.adapter.rollouts == "merged", shards, decodes)
        decoding = {name: getattr(rollout, name) for name in ("max_rows", "attention", "compile")}
        if not one:
            return RolloutEngine(weights.module, tokenizer, markers, **decoding), weights.sync
        with batch_of_failure(None, "rollouts", together=accelerator):
            own = RolloutEngine(weights.module, tokenizer, markers, **decoding) if decodes else None
        shared = FirstRankEngine(own, accelerator, model, tokenizer, markers, rollout.max_rows)
        return shared, weights.sync
    if processes > 1:
        raise ValueError(
            f"rollout.engine: must be 'own' with {processes} processes, 'vllm' decodes in one; got "
            f"'{rollout.engine}'"
        )
    options: dict[str, Any] = {"gpu_memory_utilization": rollout.vllm_memory}
    if mixed != "no":
        options["dtype"] = "bfloat16"
    # vLLM holds weights of its own, so these are only where the merged ones are made.
    weights = RolloutModel(model, "no", has_adapter(model))
    engine = VLLMEngine(weights.module, tokenizer, markers, rollout.max_rows, **options)

    def refresh() -> None:
        weights.sync()
        engine.refresh()

    return engine, refresh
