"""Where metrics go besides the files of the run's directory: TensorBoard, W&B, and what a user adds."""

from pathlib import Path
from typing import Any

from elastic.train.config import TrainConfig

TENSORBOARD_DIRECTORY = "tensorboard"


class Sink:
    """Override what you need; `Trainer` takes such objects and calls them on the main process alone.

    A run that is killed and resumed gives the steps behind its checkpoint a second time. A sink that raises
    when it is opened ends the run before its first step; later it is left out with a warning.
    """

    def open(self, config: TrainConfig, done: int) -> None:
        """Before anything else, at each call of `Trainer.train`.

        Args:
            config: of the run.
            done: steps done already; -1 where not even the starting model's evaluation is.
        """

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """After each step, counted from 1."""

    def evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """After each evaluation: ``eval/t40_s64/accuracy`` and the like; step 0 is the starting model."""

    def samples(self, step: int, records: list[dict[str, Any]]) -> None:
        """Completions of a step, as in ``samples.jsonl``, where ``logging.samples_every`` asks for them."""

    def sync(self) -> None:
        """Before a checkpoint says that what was logged is done."""

    def close(self) -> None:
        """When `Trainer.train` ends, also by an exception."""


class TensorBoard(Sink):
    """Events in ``tensorboard/``; those behind the checkpoint that a run goes on from are purged."""

    def open(self, config: TrainConfig, done: int) -> None:
        """See `Sink`."""
        from torch.utils.tensorboard import SummaryWriter

        output = Path(config.train.output_dir)
        self._events: Any = SummaryWriter(str(output / TENSORBOARD_DIRECTORY), purge_step=done + 1)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """See `Sink`."""
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    evaluation = step

    def samples(self, step: int, records: list[dict[str, Any]]) -> None:
        """See `Sink`: a table in Markdown."""
        self._events.add_text("completions", _markdown(records), step)

    def sync(self) -> None:
        """See `Sink`."""
        self._events.flush()

    def close(self) -> None:
        """See `Sink`."""
        self._events.close()


def _markdown(records: list[dict[str, Any]]) -> str:
    names = list(records[0])
    rows = [names, ["---"] * len(names), *([record[name] for name in names] for record in records)]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", "<br>")
