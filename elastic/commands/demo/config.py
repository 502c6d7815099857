"""The settings of a demo."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic.commands.parts.state import versions
from elastic.commands.parts.training import training_config
from elastic.data import Problem
from elastic.evaluate.methods import BudgetPair
from elastic.models import tiny
from elastic.train import TrainConfig

METHODS = ("vanilla", "separate", "capped", "e1")
PART = "elastic.commands.demo.part"  # where `run_part` is
TRACED = 100  # problems of the evaluation whose answers the report shows
TRAINED = ("capped", "e1")  # each a training of its own, in a directory of its name

_TEST_SEED = 10_000  # plus the demo's: training and evaluation never share a seed


@dataclass(frozen=True)
class DemoConfig:
    """The defaults are what `elastic demo` runs; `choose` chose them on the validation split.

    Attributes:
        seed: seed of both trainings. That of the evaluation's problems and answers is derived from it.
        split: split of the evaluation's problems. Training takes no problem of ``test`` or ``validation``.
        thinking: t*, the thinking budget of E1's rollouts, in tokens.
        solution: s*, their solution budget, and the solution budget of every evaluation. The control's
            rollouts have one hard cap of t* + s*.
        thinking_budgets: those of the evaluation, in tokens; it also runs without any budget.
        problems: how many the evaluation has.
        temperature: of rollouts and of the evaluation's answers.
        steps: rollout batches of a training.
        prompts_per_step: problems per batch.
        samples_per_prompt: answers per problem of a batch.
        learning_rate: of AdamW.
        kl_coef: weight of the KL to the untrained model.
        max_rows: rows decoded together.
        save_every: steps between checkpoints.
    """

    seed: int = 0
    split: str = "test"
    thinking: int = 40
    solution: int = 24
    thinking_budgets: tuple[int, ...] = (0, 8, 16, 24, 32, 40, 48, 64, 96)
    problems: int = 512
    temperature: float = 1.0
    steps: int = 40
    prompts_per_step: int = 24
    samples_per_prompt: int = 8
    learning_rate: float = 2e-4
    kl_coef: float = 0.03
    max_rows: int = 64
    save_every: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: expected 0 .. 2^31-1, got {self.seed}")

    @property
    def limits(self) -> list[BudgetPair]:
        """The evaluated (t, s) pairs, the unlimited one last."""
        return [*((thinking, self.solution) for thinking in self.thinking_budgets), (None, None)]

    @property
    def test_seed(self) -> int:
        """The seed of the evaluation's problems and answers."""
        return _TEST_SEED + self.seed

    def test_problems(self) -> list[Problem]:
        """The evaluation's problems."""
        return tiny.problems(self.problems, self.test_seed, self.split)

    def traced_problems(self) -> list[Problem]:
        """Those whose answers are kept."""
        return self.test_problems()[:TRACED]

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON gives it back."""
        weights = (tiny.CHECKPOINT / "model.safetensors").read_bytes()
        settings = dataclasses.asdict(self) | {
            "test_seed": self.test_seed,
            "model_sha256": hashlib.sha256(weights).hexdigest(),
            "versions": versions(),
        }
        return json.loads(json.dumps(settings))

    def training(self, method: str, run_dir: Path) -> TrainConfig:
        """The configuration of a training: GRPO, reward 1 for a right answer, nothing else.

        E1 and the control differ in what ends a rollout, and in nothing else.

        Args:
            method: one of `TRAINED`.
            run_dir: of checkpoints, metrics and the trained model.
        """
        budgets = {
            "e1": {"thinking": self.thinking, "solution": self.solution},
            "capped": {"total": self.thinking + self.solution},
        }
        return training_config(
            self,
            model="tiny",
            device="cpu",
            seed=self.seed,
            steps=self.steps,
            run_dir=run_dir,
            method=method,
            tables={"budget": budgets[method]},
        )


def from_json(text: str) -> DemoConfig:
    """The configuration that `to_json` wrote."""
    values = json.loads(text)
    return DemoConfig(**values | {"thinking_budgets": tuple(values["thinking_budgets"])})


def to_json(config: DemoConfig) -> str:
    """All fields, for another process."""
    return json.dumps(dataclasses.asdict(config))
