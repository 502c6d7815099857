"""The settings of a replication."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic.commands.parts.state import versions
from elastic.data import Problem
from elastic.data.files import sha256
from elastic.data.sums import problems
from elastic.models import tiny

Pair = tuple[int, int]
BudgetPair = tuple[int | None, int | None]

NONE: BudgetPair = (None, None)
TRACED = 24  # problems whose answers the report shows
_TEST_SEED = 20_000  # of all test problems, and plus a training's of its answers: none is a training's


@dataclass(frozen=True)
class ReplicateConfig:
    """The defaults are what `make replicate` runs.

    Every token count is in the embedded model's words. The paper's (t*, s*) = (1K, 1K) stands to thoughts of
    10K tokens as (40, 24) does to thoughts of 80 only roughly: what is replicated is the comparison.

    Attributes:
        seeds: trainings of every method, seeds 0, 1, ...; each has test problems of its own.
        split: of the evaluation's problems. Training takes no problem of ``test`` or ``validation``.
        base: `tiny`, or the directory of another model over the embedded model's vocabulary.
        device: where to train and evaluate, as in ``[model]``.
        reading_steps: of the further pretraining that teaches the base to read requests; 0 takes it as it is.
        thinking: t*, of the trainings that have one.
        solution: s*, and the solution budget of the evaluation's grid.
        thinking_budgets: of the grid; every model also answers without any budget.
        splits: (t, s) with the same sum: asymmetric controls.
        unthought: solution budgets at t = 0, a control.
        ablation: other (t*, s*) that E1 is trained under, with seed 0 alone.
        problems: of the evaluation, per seed; no two of all of them are equal.
        temperature: of rollouts and of the evaluation's answers.
        steps: rollout batches of a training.
        long_steps: of the longer L1-Exact, from which L1-Max starts.
        request: least and greatest N that L1's prompts ask for in training.
        alpha: reward that L1 loses per token. Between the ends of `request` that makes 1.17, as in the paper
            (3e-4 x 3900 tokens).
        max_new_tokens: end of a completion without budgets; above the longest thoughts, so that only a text
            that goes on for ever meets it.
        token_stops: mean tokens of an answer at which two arms are compared, where both take them.
        cuts: of each thought of the AnytimeReasoner training (arXiv 2505.13438), in tokens, up to t*.
        curriculum_start: first t* of the curriculum.
        prompts_per_step: problems per batch.
        samples_per_prompt: answers per problem of a batch.
        learning_rate: of AdamW.
        kl_coef: weight of the KL to the model that the training starts from.
        max_rows: rows decoded together.
        save_every: steps between checkpoints.
    """

    seeds: int = 3
    split: str = "test"
    base: str = tiny.NAME
    device: str = "cpu"
    reading_steps: int = 100
    thinking: int = 40
    solution: int = 24
    thinking_budgets: tuple[int, ...] = (0, 8, 16, 24, 32, 40, 48, 64, 96)
    splits: tuple[Pair, ...] = ((16, 48), (32, 32), (48, 16), (60, 4))
    unthought: tuple[int, ...] = (12, 48)
    ablation: tuple[Pair, ...] = ((16, 24), (24, 24), (40, 12), (64, 24))
    problems: int = 320
    temperature: float = 1.0
    steps: int = 40
    long_steps: int = 80
    request: Pair = (16, 128)
    alpha: float = 1.17 / 112
    max_new_tokens: int = 320
    cuts: tuple[int, ...] = (16, 40)
    token_stops: tuple[int, ...] = tuple(range(16, 97, 8))
    curriculum_start: int = 96
    prompts_per_step: int = 24
    samples_per_prompt: int = 8
    learning_rate: float = 2e-4
    kl_coef: float = 0.03
    max_rows: int = 64
    save_every: int = 20
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds: must be at least 1, got {self.seeds}")
        if self.steps > self.long_steps:
            raise ValueError(f"steps: must be at most long_steps = {self.long_steps}, got {self.steps}")
        if self.thinking not in self.thinking_budgets:
            raise ValueError(f"thinking: must be one of thinking_budgets, got {self.thinking}")

    @classmethod
    def harder(cls, **changes: Any) -> "ReplicateConfig":
        """A harder instance: a solution holds one missing step (11 tokens), where 24 tokens hold three."""
        values: dict[str, Any] = {
            "thinking": 48,
            "solution": 12,
            "splits": ((24, 36), (36, 24), (56, 4)),
            "unthought": (24, 48),
            "ablation": ((24, 12), (64, 12)),
            "cuts": (24, 48),
        }
        return cls(**values | changes)

    @classmethod
    def quick(cls, **changes: Any) -> "ReplicateConfig":
        """Settings that run everything in seconds and show nothing."""
        values: dict[str, Any] = {
            "seeds": 1,
            "reading_steps": 2,
            "thinking": 16,
            "solution": 12,
            "thinking_budgets": (0, 16, 32),
            "splits": ((8, 20),),
            "unthought": (8,),
            "ablation": ((8, 12),),
            "problems": 8,
            "steps": 1,
            "long_steps": 2,
            "request": (16, 40),
            "alpha": 1.17 / 24,
            "max_new_tokens": 48,
            "cuts": (8, 16),
            "curriculum_start": 32,
            "prompts_per_step": 4,
            "samples_per_prompt": 4,
            "save_every": 1,
        }
        return cls(**values | changes)

    @property
    def all_seeds(self) -> range:
        """The training seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def grid(self) -> list[BudgetPair]:
        """The (t, s) under which every model answers, ascending in t."""
        return [(thinking, self.solution) for thinking in self.thinking_budgets]

    @property
    def open_grid(self) -> list[BudgetPair]:
        """The grid, and no budget."""
        return [*self.grid, NONE]

    @property
    def controls(self) -> list[BudgetPair]:
        """(t, s) beside the grid."""
        return [*self.splits, *((0, solution) for solution in self.unthought)]

    @property
    def tight(self) -> list[BudgetPair]:
        """The grid up to t* + 8: there thoughts are cut."""
        return [pair for pair in self.grid if pair[0] is not None and pair[0] <= self.thinking + 8]

    def test_seed(self, seed: int) -> int:
        """The seed of the evaluation's answers that belongs to a training seed."""
        return _TEST_SEED + seed

    def test_problems(self, seed: int) -> list[Problem]:
        """The evaluation's problems that belong to a training seed: its share of one draw without repeats."""
        first = self.problems * (seed - self.first_seed)
        drawn = problems(2 * self.problems * self.seeds, _TEST_SEED, self.split)
        distinct = list({problem.prompt: problem for problem in reversed(drawn)}.values())[::-1]
        return distinct[first : first + self.problems]

    def traced_problems(self) -> list[Problem]:
        """Those whose answers the report shows, of the first seed."""
        return self.test_problems(self.first_seed)[:TRACED]

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON gives it back."""
        folder = tiny.CHECKPOINT if self.base == tiny.NAME else Path(self.base)
        settings = dataclasses.asdict(self) | {"base_sha256": weights_digest(folder), "versions": versions()}
        return json.loads(json.dumps(settings))


def weights_digest(folder: Path) -> str:
    """SHA-256 over the digests of a model's weight files.

    Raises:
        ValueError: no weights there.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"base: {folder} holds no *.safetensors")
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def from_json(text: str) -> ReplicateConfig:
    """The configuration that `to_json` wrote."""
    return ReplicateConfig(**{name: _tuples(value) for name, value in json.loads(text).items()})


def to_json(config: ReplicateConfig) -> str:
    """All fields, for another process."""
    return json.dumps(dataclasses.asdict(config))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
