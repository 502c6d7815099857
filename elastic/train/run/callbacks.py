"""What a run calls of its user's while it goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from elastic.train.run.progress import Progress


class Callback:
    """Override what you need. Each is called on every process; one that returns True ends the run.

    The run then stops after the step with a checkpoint and its final model; started again, it goes on. An
    exception ends it too, see `Trainer.train`.
    """

    def on_step(self, progress: Progress, metrics: dict[str, float]) -> bool | None:
        """After each step, its evaluation included, before its checkpoint.

        Args:
            progress: where the run stands.
            metrics: the step's line of ``metrics.jsonl``.
        """

    def on_evaluation(self, progress: Progress, metrics: dict[str, float]) -> bool | None:
        """After each evaluation.

        Args:
            progress: as above; step 0 is the starting model.
            metrics: as ``eval/t40_s64/accuracy``.
        """

    def on_save(self, progress: Progress, path: Path) -> bool | None:
        """After each checkpoint that is due.

        Args:
            progress: as above.
            path: of the checkpoint.
        """


StepFunction = Callable[[Progress, dict[str, float]], bool | None]


class Callbacks:
    """All callbacks of a run, in their order.

    Args:
        given: a plain function is an `on_step`.
        accelerator: knows the processes.
    """

    def __init__(self, given: Sequence[Callback | StepFunction], accelerator: Any) -> None:
        self._all = [item if isinstance(item, Callback) else _OnStep(item) for item in given]
        self._accelerator = accelerator
        self._asked = False

    def step(self, progress: Progress, metrics: dict[str, float]) -> None:
        """See `Callback.on_step`."""
        for one in self._all:
            self._hear(one.on_step(progress, dict(metrics)))

    def evaluation(self, progress: Progress, metrics: dict[str, float]) -> None:
        """See `Callback.on_evaluation`."""
        for one in self._all:
            self._hear(one.on_evaluation(progress, dict(metrics)))

    def save(self, progress: Progress, path: Path) -> None:
        """See `Callback.on_save`."""
        for one in self._all:
            self._hear(one.on_save(progress, path))

    def begin(self) -> None:
        """Forgets what an earlier call of `Trainer.train` was asked."""
        self._asked = False

    def asked_to_stop(self) -> bool:
        """Whether a callback of any process returned True; every process must call it."""
        if self._all and self._accelerator.num_processes > 1:
            asked = torch.tensor(int(self._asked), device=self._accelerator.device)
            self._asked = bool(self._accelerator.reduce(asked, "sum").item())
        return self._asked

    def _hear(self, answer: Any) -> None:
        # Nothing but True: a function may return anything.
        self._asked = self._asked or answer is True


class _OnStep(Callback):
    """A plain function."""

    def __init__(self, function: StepFunction) -> None:
        self._function = function

    def on_step(self, progress: Progress, metrics: dict[str, float]) -> bool | None:
        return self._function(progress, metrics)
