"""The settings of a demo."""

import dataclasses
import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import elastic
from elastic import tiny
from elastic.evaluate.sweep import Limits
from elastic.train import TrainConfig


@dataclass(frozen=True)
class DemoConfig:
    """The defaults are what `elastic demo` runs.

    Attributes:
        seed: of the training, of the test problems and of every answer.
        thinking: t*, the thinking budget of the rollouts, in tokens.
        solution: s*, their solution budget, and the solution budget of every evaluation.
        thinking_budgets: of the evaluation, besides no budget at all, in tokens.
        problems: of the evaluation, from the test split, which neither training ever sees.
        temperature: of rollouts and answers.
        steps: rollout batches of the training.
        prompts_per_step: problems a batch.
        samples_per_prompt: answers a problem of a batch.
        learning_rate: of AdamW.
        max_rows: rows decoded together.
        save_every: steps between checkpoints.
    """

    seed: int = 0
    thinking: int = 56
    solution: int = 24
    thinking_budgets: tuple[int, ...] = (0, 8, 16, 28, 40, 48, 56, 64, 84, 128)
    problems: int = 512
    temperature: float = 1.0
    steps: int = 120
    prompts_per_step: int = 24
    samples_per_prompt: int = 8
    learning_rate: float = 2e-4
    max_rows: int = 64
    save_every: int = 25

    @property
    def limits(self) -> list[Limits]:
        """The evaluated (t, s) pairs, the unlimited one last."""
        return [*((thinking, self.solution) for thinking in self.thinking_budgets), (None, None)]

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON gives it back."""
        weights = (tiny.CHECKPOINT / "model.safetensors").read_bytes()
        settings = dataclasses.asdict(self) | {
            "model_sha256": hashlib.sha256(weights).hexdigest(),
            "versions": {
                "elastic": elastic.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
        }
        return json.loads(json.dumps(settings))

    def training(self, run_dir: Path) -> TrainConfig:
        """The configuration of E1's training: GRPO, reward 1 for a right answer, nothing else."""
        tables = {
            "model": {"path": "tiny", "device": "cpu"},
            "data": {"source": "tiny", "count": self.steps * self.prompts_per_step, "seed": self.seed},
            "reward": {"name": "tiny"},
            "budget": {"thinking": self.thinking, "solution": self.solution},
            "rollout": {
                "prompts_per_step": self.prompts_per_step,
                "samples_per_prompt": self.samples_per_prompt,
                "temperature": self.temperature,
                "max_rows": self.max_rows,
            },
            "optim": {"lr": self.learning_rate},
            "train": {
                "output_dir": str(run_dir),
                "steps": self.steps,
                "seed": self.seed,
                "save_every": self.save_every,
            },
            "logging": {"console_every": max(1, self.steps // 15), "tensorboard": False},
        }
        return TrainConfig.from_table(tables)
