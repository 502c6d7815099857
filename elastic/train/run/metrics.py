"""Logging of a step's metrics: one JSON line, one console line, and what `elastic.train.run.sinks` has.

The JSONL file is the record. It is appended to, and cut back to the checkpoint's step when a run is
resumed, so that every step is in it exactly once.
"""

import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from elastic.data.files import make_directory, read_text, sync, write_atomic
from elastic.train.config import TrainConfig
from elastic.train.config.loop import LoggingConfig
from elastic.train.run.completions import completions_table
from elastic.train.run.sinks import Sink, TensorBoard
from elastic.train.run.wandb_sink import Wandb

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"

# (metric, label, format) of the console line.
_CONSOLE = (
    ("reward", "reward", ".3f"),
    ("thinking_tokens", "think", ".1f"),
    ("solution_tokens", "solve", ".1f"),
    ("cut_share", "cut", ".2f"),
    ("stop_share", "stop", ".2f"),
    ("clip_fraction", "clip", ".3f"),
    ("kl", "kl", ".4f"),
    ("entropy", "entropy", ".3f"),
    ("grad_norm", "grad", ".3f"),
    ("lr", "lr", ".1e"),
    ("tokens_per_second", "tok/s", ".0f"),
    ("seconds", "s", ".2f"),
)


class JsonLines:
    """An append-only file of objects with a ``step``.

    Args:
        path: created if absent.
        last_step: lines of later steps are dropped, and so is a last line that a kill cut short.

    Raises:
        ValueError: a line in the middle of the file is no JSON object with a step.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        if path.exists():
            kept = _lines_until(path, last_step)
            write_atomic(path, "".join(kept))
        self._path = path
        self._file = path.open("ab", buffering=0)
        sync(path.parent)  # its name; what is in it, `sync` puts on the disk

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; a kill after this call does not lose it.

        Raises:
            OSError: the disk is full; names the file, which has nothing of the record.
        """
        line = (json.dumps(_finite(record), ensure_ascii=False) + "\n").encode()
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]  # a disk that gets full takes a part of it
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            error.filename = str(self._path)
            raise

    def sync(self) -> None:
        """Puts everything on the disk; called before a checkpoint says that a step is done."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _lines_until(path: Path, last_step: int) -> list[str]:
    lines = read_text(path).split("\n")
    kept = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            step = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline behind it: the line a kill cut short
                break
            raise ValueError(f"{path}, line {number}: no JSON object with a step") from error
        if step <= last_step:
            kept.append(line + "\n")
    return kept


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsLog:
    """The files, the console and all further sinks of a run; on the main process.

    Args:
        config: of the run.
        done: steps done already.
        sinks: opened here, besides those of ``[logging]``.
    """

    def __init__(self, config: TrainConfig, done: int, sinks: Sequence[Sink] = ()) -> None:
        output, self._logging = Path(config.train.output_dir), config.logging
        make_directory(output)
        self._jsonl = JsonLines(output / METRICS_FILE, done)
        self._samples_path, self._done = output / SAMPLES_FILE, done
        self._samples: JsonLines | None = None
        self._steps = config.train.steps
        # Without a terminal the printed lines replace the bar.
        self._bar = tqdm(
            total=self._steps, initial=max(0, done), desc="training", unit="step", dynamic_ncols=True,
            disable=not (self._logging.progress and sys.stderr.isatty()),
        )  # fmt: skip
        self._sinks: list[Sink] = []
        try:
            for sink in (*sinks_of(config.logging), *sinks):
                sink.open(config, done)
                self._sinks.append(sink)
        except BaseException:
            self.close()
            raise

    def step(self, record: dict[str, float], completions: Callable[[int], list[dict[str, Any]]]) -> None:
        """Logs a finished step.

        Args:
            record: has ``step``, counted from 1, and numbers.
            completions: gives so many of its completions, for steps that show some.
        """
        self._jsonl.write(record)
        step, every = int(record["step"]), self._logging.console_every
        values = {name: value for name, value in record.items() if name != "step"}
        self._tell(lambda sink: sink.step(step, values))
        self._bar.update()
        if every and (step % every == 0 or step == self._steps):
            self.say(console_line(record, self._steps))
        if self._logging.samples_every and step % self._logging.samples_every == 0:
            self.samples(completions(self._logging.samples))

    def evaluation(self, record: dict[str, Any], news: str | None) -> None:
        """Logs accuracies under budgets, and says what they brought; step 0 is the starting model."""
        self._jsonl.write(record)
        values = {name: value for name, value in record.items() if name.startswith("eval/")}
        self._tell(lambda sink: sink.evaluation(int(record["step"]), values))
        accuracies = {name: value for name, value in values.items() if name.endswith("/accuracy")}
        parts = [f"{name.split('/')[1]} {value:.3f}" for name, value in accuracies.items()]
        self.say(f"step {record['step']}/{self._steps}  accuracy under budgets: {', '.join(parts)}")
        if news:
            self.say(news)

    def say(self, line: str) -> None:
        """Prints a line without breaking the progress bar; nothing where ``console_every`` is 0."""
        if self._logging.console_every:
            self._bar.write(line, file=sys.stderr)

    def samples(self, records: list[dict[str, Any]]) -> None:
        """Appends completions to ``samples.jsonl``, and shows them."""
        if self._samples is None:
            self._samples = JsonLines(self._samples_path, self._done)
        for record in records:
            self._samples.write(record)
        self._tell(lambda sink: sink.samples(int(records[0]["step"]), records))
        if self._logging.samples_table:
            self.say(completions_table(records, shutil.get_terminal_size((120, 24)).columns))

    def sync(self) -> None:
        """Puts the files on the disk."""
        self._jsonl.sync()
        if self._samples is not None:
            self._samples.sync()
        self._tell(lambda sink: sink.sync())

    def close(self) -> None:
        """Ends the progress bar and closes all files and sinks."""
        with ExitStack() as closed:  # all of them, whatever one raises
            for file in (self._samples, self._jsonl, self._bar):
                if file is not None:
                    closed.callback(file.close)
            self._tell(lambda sink: sink.close())

    def _tell(self, call: Callable[[Sink], None]) -> None:
        """Calls every sink. One that fails gets no more: the files have it all, and the run goes on."""
        for sink in list(self._sinks):
            try:
                call(sink)
            except Exception as error:
                self._sinks.remove(sink)
                warnings.warn(
                    f"the sink {type(sink).__name__} failed and gets nothing more of this run: {error!r}",
                    stacklevel=3,
                )


def sinks_of(config: LoggingConfig) -> list[Sink]:
    """The sinks that ``[logging]`` asks for."""
    sinks: list[Sink] = []
    if config.tensorboard and find_spec("tensorboard") is not None:
        sinks.append(TensorBoard())
    if config.wandb is not None:
        sinks.append(Wandb())
    return sinks


def console_line(record: dict[str, float], steps: int) -> str:
    """``step 12/150  reward 0.412  think 31.0 ...``; metrics the record lacks are left out."""
    parts = [f"{label} {record[name]:{form}}" for name, label, form in _CONSOLE if name in record]
    return f"step {int(record['step'])}/{steps}  " + "  ".join(parts)
