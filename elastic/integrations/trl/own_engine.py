"""Rollouts by `RolloutEngine` on the trainer's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from elastic.budget import Budget, Phase
from elastic.integrations.trl.generation import Generation
from elastic.models.rollout_model import RolloutModel
from elastic.models.threads import threads_for
from elastic.rollout import RolloutBatch, RolloutEngine


class OwnEngine:
    """An engine over the model of a trainer, built at the first call.

    Under mixed precision it decodes with a 16-bit copy of float32 weights, brought up to date at every call.

    Args:
        options: of `RolloutEngine`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._model: Any = None
        self._weights: RolloutModel | None = None
        self._engine: RolloutEngine | None = None

    def generate(
        self, trainer: Any, generation: Generation, budgets: Sequence[Budget], phase: Phase | None
    ) -> RolloutBatch:
        """One completion for each row, on the CPU.

        Args:
            trainer: a GRPOTrainer.
            generation: its rows.
            budgets: one per row.
            phase: where the rows start; None reads it from the prompts.

        Raises:
            ValueError: parameters are sharded, or a budget does not fit `max_completion_length` or context.
        """
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError(
                "elastic_rollout_func: rollouts on the trained model need whole parameters in each process, "
                "got FSDP or DeepSpeed; set use_vllm=True and vllm_mode='server'"
            )
        engine = self._ready(trainer)
        size = generation.group_size if generation.whole_groups else 1
        with threads_for(engine.model, min(engine.max_rows, len(generation.prompts))), _as_trl_says():
            return engine.generate(
                generation.prompts[::size],
                budget=list(budgets),
                samples_per_prompt=size,
                sampling=generation.sampling,
                max_new_tokens=generation.max_new_tokens,
                seeds=generation.row_seeds,
                progress=False,
                phase=phase,
            ).to("cpu")

    def _ready(self, trainer: Any) -> RolloutEngine:
        """The engine, with the trainer's weights of now."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._engine is None or self._weights is None or self._model is not model:
            self._model = model
            self._weights = RolloutModel(model, trainer.accelerator.mixed_precision)
            self._engine = RolloutEngine(
                self._weights.module, trainer._tokenizer, eos_ids=trainer.eos_token_ids, **self._options
            )
        self._weights.sync()
        return self._engine


@contextmanager
def _as_trl_says() -> Iterator[None]:
    """Errors about the length of completions name TRL's argument."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("max_new_tokens:"):
            raise
        raise ValueError(str(error).replace("max_new_tokens", "max_completion_length", 1)) from None
