"""Metrics in Weights & Biases."""

import json
from pathlib import Path
from typing import Any

from elastic.data.files import read_object, write_atomic
from elastic.train.config import TrainConfig
from elastic.train.run.sinks import Sink

ID_FILE = "wandb.json"
_STEP = "train_step"


class Wandb(Sink):
    """The same metrics as ``metrics.jsonl``, the configuration, and the samples as a table.

    A resumed run goes on in the same W&B run, whose id is in ``wandb.json``. W&B's own step only grows, so
    ``train_step`` is the axis of all metrics: steps that are done again after a kill have two points. Console
    output, code and the repository's state are not sent.
    """

    def open(self, config: TrainConfig, done: int) -> None:
        """See `Sink`."""
        import wandb

        chosen, output = config.logging, Path(config.train.output_dir)
        file = output / ID_FILE
        known = read_object(file)["id"] if file.exists() else None
        self._wandb = wandb
        self._run: Any = wandb.init(
            project=chosen.wandb,
            name=chosen.wandb_name,
            tags=list(chosen.wandb_tags) or None,
            mode=chosen.wandb_mode,
            dir=str(output),
            id=known,
            resume="allow",
            config=config.to_dict(),
            allow_val_change=True,
            settings=wandb.Settings(console="off", quiet=True, disable_git=True, save_code=False),
        )
        write_atomic(file, json.dumps({"id": self._run.id}) + "\n")
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """See `Sink`."""
        self._run.log(metrics | {_STEP: step})

    evaluation = step

    def samples(self, step: int, records: list[dict[str, Any]]) -> None:
        """See `Sink`."""
        names: list[Any] = list(records[0])
        rows = [[_plain(record[name]) for name in names] for record in records]
        table = self._wandb.Table(columns=names, data=rows)
        self._run.log({"completions": table, _STEP: step})

    def close(self) -> None:
        """See `Sink`."""
        self._run.finish()


def _plain(value: Any) -> Any:
    """A cell: W&B wants one type in a column."""
    return value if isinstance(value, int | float | str) else str(value)
