"""A rollout function for TRL's GRPOTrainer: completions under thinking and solution budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from elastic.budget import START_PHASES, Budget, FinishReason, Markers, Phase
from elastic.integrations.trl.generation import Generations
from elastic.integrations.trl.group_budgets import GroupBudgets
from elastic.integrations.trl.own_engine import OwnEngine
from elastic.integrations.trl.server import VLLMServer
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import Measures, measure

_UNUSED = {  # options of a GRPOConfig for other ways to generate
    "repetition_penalty": 1.0,
    "generation_kwargs": None,
    "cache_implementation": None,
    "use_transformers_continuous_batching": False,
    "vllm_structured_outputs_regex": None,
}
_COUNTS = ("thinking_tokens", "solution_tokens", "thinking_cut", "solution_cut")  # of `Measures`
_FOR_REWARDS = ("thinking_text", "solution_text", *_COUNTS, "finish_reason")


def elastic_rollout_func(
    budget: Budget | Sequence[Budget],
    *,
    mask_cut_solutions: bool = False,
    markers: Markers | None = None,
    phase: str | None = None,
    max_rows: int = 64,
    attention: str = "auto",
    compile: str = "auto",
    **draw: Any,
) -> Rollout:
    """The `rollout_func` of a GRPOTrainer whose rollouts keep to budgets.

        GRPOTrainer(..., rollout_func=elastic_rollout_func(Budget(thinking=512, solution=256)))

    Rows are decoded by `RolloutEngine` on the trained model itself or, with `use_vllm=True` and
    `vllm_mode="server"`, by a vLLM server with `ElasticBudgets`. Temperature, top-p, top-k, min-p, seed and
    `max_completion_length` are the trainer's. Forced tokens are 0 in the `env_mask` that TRL is given: they
    carry no loss, KL or entropy, and no denominator counts them. Reward functions get `thinking_text`,
    `solution_text`, `thinking_tokens`, `solution_tokens`, `thinking_cut`, `solution_cut` and `finish_reason`
    of each completion; the log gets means of the numbers, named `completions/...`.

    Args:
        budget: of every row, or a list of which every group draws one.
        mask_cut_solutions: leave rows that a limit ended (a finish reason other than `stop`) out of the loss.
            They count as rows all the same. TRL's `mask_truncated_completions`, which looks at the last token
            alone, is refused.
        markers: of thinking; by default those of the tokenizer, as `RolloutEngine` finds them.
        phase: where rows start: "opening", "thinking" or "solution"; None reads it from the prompt's end.
        max_rows, attention, compile: of `RolloutEngine`.
        draw: of `GroupBudgets`: `thinking_low`, `solution_low`, `thinking_column`, `solution_column`.

    Raises:
        TypeError, ValueError: a bad argument, before anything runs. The first call names options of the
            trainer that rollouts under budgets cannot honour.
    """
    if phase is not None and phase not in START_PHASES:
        raise ValueError(f"phase: expected one of {', '.join(START_PHASES)} or None, got {phase!r}")
    own = OwnEngine(markers=markers, max_rows=max_rows, attention=attention, compile=compile)
    start = None if phase is None else START_PHASES[phase]
    return Rollout(GroupBudgets(budget, **draw), own, VLLMServer(markers), mask_cut_solutions, start)


class Rollout:
    """What `elastic_rollout_func` makes; see there."""

    def __init__(
        self,
        budgets: GroupBudgets,
        own: OwnEngine,
        server: VLLMServer,
        mask_cut_solutions: bool,
        phase: Phase | None,
    ) -> None:
        self._budgets, self._own, self._server = budgets, own, server
        self._mask_cut_solutions, self._phase = mask_cut_solutions, phase
        self._generations = Generations()

    def check_config(self, args: Any) -> None:
        """Refuses options of a GRPOConfig that these rollouts cannot honour.

        Raises:
            ValueError: naming the option, its value and what to do.
        """
        if args.max_completion_length is None:
            raise ValueError("max_completion_length: expected a number of tokens, got None")
        for name, without in _UNUSED.items():
            if (value := getattr(args, name)) not in (without, {}):
                raise ValueError(
                    f"{name}: expected {without}, which rollouts under budgets go by; got {value}"
                )
        if args.mask_truncated_completions:
            raise ValueError(
                "mask_truncated_completions: expected False, got True: it would drop every solution that its "
                "budget cut; pass mask_cut_solutions=True to elastic_rollout_func if they shall be dropped"
            )
        if args.use_vllm and args.vllm_mode != "server":
            raise ValueError(
                f"vllm_mode: expected 'server', got {args.vllm_mode!r}: TRL gives a vLLM in its own process "
                "no logits processors, so nothing would enforce the budgets there"
            )

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """Called by the trainer with a prompt for each completion of this process.

        Returns:
            `prompt_ids`, `completion_ids`, `logprobs` and `env_mask`, lists of R lists, and R values each of
            what reward functions are given.

        Raises:
            ValueError: an option of the trainer that cannot be honoured, a budget that does not fit.
        """
        self.check_config(trainer.args)
        if trainer.tools:
            raise ValueError("tools, environment_factory: expected none, as TRL would ignore env_mask")
        generation = self._generations.next(trainer, prompts)
        datasets = _datasets(trainer.train_dataset if generation.training else trainer.eval_dataset)
        _check_columns(datasets)
        budgets = self._budgets.draw(
            *(prompts, generation.groups, generation.seed, generation.training, datasets)
        )
        engine = self._server if trainer.use_vllm else self._own
        batch = engine.generate(trainer, generation, budgets, self._phase)
        measures = measure(batch)
        _log(trainer, "train" if generation.training else "eval", measures)
        sampled = batch.sampled
        if self._mask_cut_solutions:
            sampled = sampled & ~measures.truncated[:, None]
        return {
            "prompt_ids": generation.prompts,
            "completion_ids": _rows(batch, batch.tokens),
            "logprobs": _rows(batch, batch.full_logprobs),
            "env_mask": _rows(batch, sampled.int()),
            **_for_rewards(batch, measures),
        }


def _datasets(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given.values()) if isinstance(given, dict) else [given]


def _check_columns(datasets: Sequence[Any]) -> None:
    """Refuses columns that reward functions would not get, as TRL would give them ours under that name."""
    for dataset in datasets:
        taken = sorted(set(_FOR_REWARDS).intersection(dataset.column_names or ()))
        if taken:
            raise ValueError(
                f"the dataset's columns {', '.join(taken)}: rename them, reward functions get values of the "
                "completions under these names"
            )


def _rows(batch: RolloutBatch, values: torch.Tensor) -> list[list[Any]]:
    return [row[:length] for row, length in zip(values.tolist(), batch.lengths.tolist(), strict=True)]


def _for_rewards(batch: RolloutBatch, measures: Measures) -> dict[str, list[Any]]:
    rows = range(len(batch))
    reasons = [FinishReason(reason).text for reason in batch.finish_reason.tolist()]
    texts = ([batch.thinking(row) for row in rows], [batch.solution(row) for row in rows])
    counts = (getattr(measures, name).tolist() for name in _COUNTS)
    return dict(zip(_FOR_REWARDS, (*texts, *counts, reasons), strict=True))


def _log(trainer: Any, mode: str, measures: Measures) -> None:
    """Adds the means over all processes to the trainer's metrics."""
    own = torch.stack([getattr(measures, name).float() for name in _COUNTS], 1)
    means = trainer.accelerator.gather(own.to(trainer.accelerator.device)).mean(0).tolist()
    for name, value in zip(_COUNTS, means, strict=True):
        trainer._metrics[mode][f"completions/{name}"].append(value)
