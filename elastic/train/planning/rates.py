"""Rates measured by an earlier run, from its metrics.jsonl."""

import json
from dataclasses import dataclass
from pathlib import Path

from elastic.data.files import read_lines
from elastic.train.config import TrainConfig
from elastic.train.run.metrics import METRICS_FILE
from elastic.train.run.output import CONFIG_FILE

_NEEDED = ("completion_tokens", "rollout_tokens", "seconds_rollout", "seconds_reward", "seconds_update")


@dataclass(frozen=True)
class Rates:
    """Means over the steps of a run, the first left out where there are more: it may have compiled.

    Attributes:
        source: the file.
        steps: that were read.
        rollout: tokens of completions generated in a second, all rows together.
        update: tokens of completions that updates went through in a second, reference and epochs included.
        reward: seconds of grading for a token.
        completion_tokens: mean of a row.
        config: of that run, if it is beside the file.
    """

    source: str
    steps: int
    rollout: float
    update: float
    reward: float
    completion_tokens: float
    config: TrainConfig | None

    @classmethod
    def read(cls, path: str | Path) -> "Rates":
        """Reads a ``metrics.jsonl``, or that of a run's directory.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a line is no step of a run, or there is none.
        """
        path = Path(path)
        file = path / METRICS_FILE if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"rates: no such file: {file}")
        steps = [step for number, line in read_lines(file) if (step := _step(line, f"{file}, line {number}"))]
        if not steps:
            raise ValueError(f"rates: {file} holds no finished step")
        steps = steps[1:] or steps
        tokens, rollout, reward, update = (sum(step[name] for step in steps) for name in _NEEDED[1:])
        if min(tokens, rollout, update) <= 0:
            raise ValueError(f"rates: the steps of {file} have no tokens or took no time")
        written = file.parent / CONFIG_FILE
        return cls(
            source=str(file),
            steps=len(steps),
            rollout=tokens / rollout,
            update=tokens / update,
            reward=reward / tokens,
            completion_tokens=sum(step["completion_tokens"] for step in steps) / len(steps),
            config=TrainConfig.load(written) if written.is_file() else None,
        )

    def seconds(self, trained: float, evaluated: float) -> float:
        """How long so many tokens take at these rates.

        Args:
            trained: tokens that are generated and trained on.
            evaluated: tokens that are only generated.
        """
        both = trained + evaluated
        return both / self.rollout + both * self.reward + trained / self.update


def _step(line: str, where: str) -> dict[str, float]:
    """The needed numbers of a step; empty for the line of an evaluation."""
    try:
        record = json.loads(line)
        if "rollout_tokens" not in record and any(name.startswith("eval/") for name in record):
            return {}
        return {name: float(record[name]) for name in _NEEDED}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"rates: {where}: no step of a run, it needs {', '.join(_NEEDED)}") from error
