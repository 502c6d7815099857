"""The best model of a run by an evaluation, kept beside its checkpoints.

    best/step-00000006/   Hugging Face directory with its tokenizer, as `final`
    best.json             its step, metric and value, and how it was measured

The model is whole on the disk before ``best.json`` names it, and the one before is removed after that. So a
kill at any moment leaves a best model.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from shutil import rmtree
from typing import Any

from elastic.data.files import read_object, write_atomic
from elastic.train.config import TrainConfig
from elastic.train.run.state import RunState

BEST_FILE = "best.json"
BEST_DIRECTORY = "best"
_MEAN = "accuracy"


def check_best(config: TrainConfig, metrics: Iterable[str]) -> None:
    """Checks ``train.best`` against the metrics of an evaluation, as ``eval/t40_s64/accuracy``.

    Raises:
        ValueError: no such metric; lists those there are.
    """
    best, known = config.train.best, [_MEAN, *metrics]
    if best is not None and best not in known:
        raise ValueError(f"train.best: must be one of {', '.join(known)}, got '{best}'")


class Best:
    """Keeps the model of the best evaluation; of equal ones the earlier.

    Args:
        config: of the run; ``train.best`` is absent for none.
        run: writes the model.
        accelerator: knows the processes, all of which call every method.
    """

    def __init__(self, config: TrainConfig, run: RunState, accelerator: Any) -> None:
        self._config, self._run, self._accelerator = config, run, accelerator
        self._kept: dict[str, Any] | None = None

    def begin(self) -> None:
        """Reads what an earlier part of the run kept.

        Raises:
            ValueError: that was chosen by another metric or another evaluation, or the model is gone.
        """
        path = self._run.output / BEST_FILE
        if self._config.train.best is None or not path.exists():
            return
        kept = read_object(path)
        now = self._measured()
        other = [
            f"{name}: {kept.get(name)!r} -> {now[name]!r}" for name in now if kept.get(name) != now[name]
        ]
        if other:
            raise ValueError(
                f"train.best: {path} names the best model by another measure ({'; '.join(other)}); move it "
                f"and {path.parent / BEST_DIRECTORY} away to begin anew"
            )
        if not (self._run.output / kept["model"]).is_dir():
            raise ValueError(
                f"train.best: {path} names {kept['model']}, which is gone; remove it to begin anew"
            )
        self._kept = kept
        self._remove_others()

    def offer(self, step: int, record: dict[str, float]) -> str | None:
        """Keeps the model as it is if the evaluation of this step is better than all before.

        Returns:
            A line that says so; None if it is not.
        """
        name = self._config.train.best
        if name is None:
            return None
        value = _value(record, name)
        sign = 1 if self._config.train.best_is == "greatest" else -1
        if math.isnan(value) or (self._kept is not None and sign * value <= sign * self._kept["value"]):
            return None
        model = f"{BEST_DIRECTORY}/step-{step:08d}"
        target = self._run.save_model(self._run.output / model)
        self._kept = {"step": step, "value": value, "model": model} | self._measured()
        if self._accelerator.is_main_process:
            write_atomic(self._run.output / BEST_FILE, json.dumps(self._kept, indent=1) + "\n")
        self._remove_others()
        return f"the best so far by {name}: {value:.4g}, kept in {target}"

    def waited(self, step: int) -> bool:
        """Whether ``train.patience`` evaluations up to this step brought nothing better."""
        patience, every = self._config.train.patience, self._config.eval.every
        if not patience or self._kept is None:
            return False
        return step // every - self._kept["step"] // every >= patience

    def _remove_others(self) -> None:
        """Removes earlier models, and what a kill left of one."""
        assert self._kept is not None
        if self._accelerator.is_main_process:
            kept = self._run.output / self._kept["model"]
            for other in kept.parent.iterdir():
                if other != kept:
                    rmtree(other)
        self._accelerator.wait_for_everyone()

    def _measured(self) -> dict[str, Any]:
        """What makes values comparable."""
        loop = self._config.train
        evaluation = self._config.to_dict()["eval"]
        unread = {"every", "at_start"} | ({"budgets"} if loop.best != _MEAN else set())
        measured = {name: value for name, value in evaluation.items() if name not in unread}
        return {"metric": loop.best, "is": loop.best_is, "eval": measured}


def _value(record: dict[str, float], metric: str) -> float:
    """A metric of an evaluation, or the mean accuracy of its budgets."""
    if metric != _MEAN:
        return record[metric]
    values = [value for name, value in record.items() if name.endswith(f"/{_MEAN}")]
    return sum(values) / len(values)


def best_model(output: Path) -> Path | None:
    """The directory of a run's best model; None where it kept none."""
    path = output / BEST_FILE
    return output / read_object(path)["model"] if path.exists() else None
