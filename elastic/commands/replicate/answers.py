"""What the models answer: the samples of an arm, decoded or read back.

Each arm's samples are one file, written when all of them are there, so a killed run decodes at most one arm
of each process again. Problem i of a seed has the same random numbers in every arm and under every budget.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from elastic.budget import Budget, Phase
from elastic.commands.parts.samples import samples_path as samples_of
from elastic.commands.replicate.config import NONE, ReplicateConfig
from elastic.commands.replicate.plan import Arm
from elastic.evaluate import PolicyOptions, Sample, eval_set, evaluate
from elastic.evaluate.engines import Engine
from elastic.evaluate.methods import get_method
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.rollout.cuts import solutions_behind_cuts
from elastic.rollout.plan.starts import PhaseName
from elastic.sampling import Sampling


def answer(engine: Engine, arm: Arm, config: ReplicateConfig, seed: int) -> list[Sample]:
    """The samples of an arm: every budget of it on the problems that belong to a training seed.

    Those of `ReplicateConfig.traced_problems` keep their texts.
    """
    traced = {problem.id for problem in config.traced_problems()}
    unlimited = any(pair == NONE for pair in arm.pairs) or get_method(arm.method).length != "none"
    samples = evaluate(
        engine,
        eval_set("tiny", config.test_problems(seed), engine.tokenizer),
        [arm.method],
        arm.pairs,
        sampling=Sampling(temperature=config.temperature, seed=config.test_seed(seed)),
        options=PolicyOptions(closing=arm.closing),
        max_new_tokens=config.max_new_tokens if unlimited else None,
        texts=seed == config.first_seed,
        chunk_rows=config.problems,
        progress=False,
    )
    return [
        replace(sample, method=arm.name, segments=sample.segments if sample.problem in traced else ())
        for sample in samples
    ]


class SwappedEngine:
    """Thoughts of one model and solutions of another: the paper's segment swap (arXiv 2505.05315).

    Args:
        thinker: engine that thinks.
        solver: engine that answers, over the same vocabulary.
    """

    def __init__(self, thinker: RolloutEngine, solver: RolloutEngine) -> None:
        self._thinker, self._solver = thinker, solver
        self.tokenizer, self.markers = solver.tokenizer, solver.markers
        self.limits, self.max_rows = solver.limits, solver.max_rows

    def generate(
        self,
        prompts: Sequence[str],
        budget: Budget,
        samples_per_prompt: int = 1,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        *,
        add_special_tokens: bool | None = None,
        phase: Sequence[PhaseName | Phase | None] | None = None,
    ) -> RolloutBatch:
        """Completes every prompt as `RolloutEngine.generate` does."""
        thoughts = self._thinker.generate(
            prompts,
            budget,
            samples_per_prompt,
            sampling,
            max_new_tokens,
            seeds,
            progress,
            add_special_tokens=add_special_tokens,
            phase=phase,
        )
        (batch,) = solutions_behind_cuts(
            self._solver, thoughts, [budget], sampling=sampling, progress=progress
        )
        return batch


def open_engine(model: Any, tokenizer: Any, config: ReplicateConfig) -> RolloutEngine:
    """The engine of a model of the replication."""
    return RolloutEngine(model, tokenizer, max_rows=config.max_rows)


def samples_path(out: Path, arm: str, seed: int) -> Path:
    """Where an arm's samples are kept."""
    return samples_of(out, f"{arm}-{seed}")
