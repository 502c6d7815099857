"""The folder of an evaluation: settings, and an append-only file of samples that survives a kill.

A chunk's lines are appended in one write behind which the file is synced. What a kill leaves of an unfinished
chunk is cut off when the run goes on, so the file is the same as of a run that nothing stopped.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elastic.data.files import read_object, write_atomic
from elastic.evaluate.run.plan import Chunk
from elastic.evaluate.run.settings import other_settings
from elastic.evaluate.sample import Sample

SAMPLES = "samples.jsonl"
SETTINGS = "settings.json"
RESULT = "eval.json"


def read_samples(path: str | os.PathLike) -> list[Sample]:
    """The samples of a `samples.jsonl`, or of the folder that holds one.

    Raises:
        ValueError: a line that is no sample; names file and line.
        OSError: it cannot be read.
    """
    path = Path(path)
    return list(iterate_samples(path / SAMPLES if path.is_dir() else path))


def iterate_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file one by one: with their texts they may be larger than memory.

    A last line that is being written, or that a kill cut short, is passed over.

    Raises:
        ValueError: as `read_samples`.
        OSError: likewise.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _sample(line, f"{path}, line {number}")
            except ValueError:
                if line.endswith(b"\n"):
                    raise


def earlier_chunk_rows(path: str | os.PathLike) -> int | None:
    """`chunk_rows` of the call that began a folder; None where there is none that says it.

    So a call with other `max_rows`, say as memory was short, cuts the same chunks.
    """
    settings = _settings(Path(path))
    rows = (settings or {}).get("chunk_rows")
    return rows if isinstance(rows, int) else None


class Folder:
    """The folder of one run, locked while it is open.

    Args:
        path: created if it is not there.
        settings: what the samples depend on, as JSON gives it back.
        chunks: what the run writes, in order.

    Attributes:
        samples: those of the chunks that are done, without their texts.
        done: how many chunks that are.

    Raises:
        ValueError: the folder holds samples of other settings, naming what differs, or of no evaluation; or
            another run is writing there.
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, settings: dict[str, Any], chunks: Sequence[Chunk]):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out: expected a folder, got {path}, which is a file")
        self.path.mkdir(parents=True, exist_ok=True)
        self._file = (self.path / SAMPLES).open("a+b")
        try:
            self._lock()
            self._check_settings(json.loads(json.dumps(settings)))
            self.samples, self.done = self._read(chunks)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, samples: Iterable[Sample]) -> None:
        """Writes a chunk's samples; they are on disk when this returns."""
        found = list(samples)
        lines = (json.dumps(sample.to_dict(), ensure_ascii=False) + "\n" for sample in found)
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.samples += map(_without_text, found)
        self.done += 1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError:
            raise ValueError(f"out: another run is writing into {self.path}") from None

    def _check_settings(self, settings: dict[str, Any]) -> None:
        kept = _settings(self.path)
        if kept is None:
            if (self.path / SAMPLES).stat().st_size or (self.path / RESULT).exists():
                raise ValueError(
                    f"out: {self.path} holds samples or results, but no {SETTINGS}: not of this command"
                )
            text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
            write_atomic(self.path / SETTINGS, text)
            return
        found = other_settings(kept, settings)
        if found:
            raise ValueError(
                f"out: {self.path} holds an evaluation with other settings (there, here): {'; '.join(found)}"
            )

    def _read(self, chunks: Sequence[Chunk]) -> tuple[list[Sample], int]:
        """The samples of whole chunks, and how many these are; what is behind them is cut off."""
        self._file.seek(0)
        samples: list[Sample] = []
        kept = 0
        for done, chunk in enumerate(chunks):
            lines = [self._file.readline() for _ in range(chunk.lines)]
            if not lines[-1].endswith(b"\n"):  # torn, or not there
                self._file.truncate(kept)
                return samples, done
            for key, line in zip(chunk.keys, lines, strict=True):
                where = f"{self.path / SAMPLES}, line {len(samples) + 1}"
                sample = _sample(line, where)
                if (sample.data, sample.method, sample.budget, sample.problem, sample.sample) != key:
                    raise ValueError(f"{where}: expected the sample {key}")
                samples.append(_without_text(sample))
            kept = self._file.tell()
        if self._file.read(1):
            raise ValueError(f"{self.path / SAMPLES}, line {len(samples) + 1}: expected no more samples")
        return samples, len(chunks)


def _without_text(sample: Sample) -> Sample:
    """For the memory: thoughts of a whole evaluation may be gigabytes."""
    return replace(sample, segments=())


def _settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    return read_object(path) if path.is_file() else None


def _sample(line: str | bytes, where: str) -> Sample:
    try:
        return Sample.from_dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: no sample: {error}") from error
