"""Checkpoints: complete or absent, and holding all that a run needs to resume exactly.

    checkpoints/step-00000050/model/...       Hugging Face directory with its tokenizer
    checkpoints/step-00000050/optimizer.pt    optimizer state by parameter name
    checkpoints/step-00000050/rng.pt          generators of every process
    checkpoints/step-00000050/identity.json   fingerprints of what the run works on, see `identity`
    checkpoints/step-00000050/state.json      counters and configuration
    checkpoints/step-00000050/SHA256SUMS      of every other file

A checkpoint is written under another name, synced to the disk, and renamed (`directories`). A kill at any
moment therefore leaves no directory that looks like a checkpoint and is not one.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elastic.data.files import check_checksums, make_directory, read_object, write_checksums
from elastic.train.run.directories import check_space, clear_left_overs, remove_directory, write_directory
from elastic.train.run.progress import Progress

DIRECTORY = "checkpoints"
_NAME = re.compile(r"step-([0-9]{8})")
_STATE = "state.json"
_FORMAT = 3


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    progress: Progress
    config: dict[str, Any]

    @property
    def model(self) -> Path:
        """The Hugging Face directory."""
        return self.path / "model"

    def load_tensors(self, name: str) -> Any:
        """What was stored under that name with `torch.save`, on the CPU."""
        return torch.load(self.path / name, map_location="cpu", weights_only=True)


def checkpoint_path(output: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return output / DIRECTORY / f"step-{step:08d}"


def save_checkpoint(
    output: Path,
    progress: Progress,
    config: dict[str, Any],
    write: Callable[[Path], None],
    keep: int,
    needed: int = 0,
) -> Path:
    """Writes a checkpoint and removes the oldest beyond `keep`.

    Args:
        output: the run's directory.
        progress: the checkpoint's name and content.
        config: of the run.
        write: puts the files (all but state and checksums) into the directory it is given.
        keep: how many checkpoints stay, at least 1.
        needed: bytes that it takes, at least.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched. Names the checkpoint,
            and what space it needs and has.
    """
    target = checkpoint_path(output, progress.step)
    make_directory(target.parent)
    check_space(target, needed)

    def write_all(directory: Path) -> None:
        write(directory)
        state = {"format": _FORMAT, **asdict(progress), "config": config}
        (directory / _STATE).write_text(json.dumps(state, indent=1))
        write_checksums(directory)

    write_directory(target, write_all)
    for _, old in _complete(target.parent)[:-keep]:
        remove_directory(old)
    return target


def newest_checkpoint(output: Path, clean: bool = True) -> Checkpoint | None:
    """The newest complete checkpoint of a run, or None.

    Args:
        output: the run's directory.
        clean: remove left-overs of a kill; for one process of a run.

    Raises:
        ValueError: the newest checkpoint is damaged: a file is missing or is not the one that was written.
    """
    root = output / DIRECTORY
    if not root.is_dir():
        return None
    if clean:
        clear_left_overs(root)
    complete = checkpoint_paths(output)
    return _read(complete[-1]) if complete else None


def checkpoint_paths(output: Path) -> list[Path]:
    """A run's checkpoints, the newest last."""
    root = output / DIRECTORY
    return [path for _, path in _complete(root)] if root.is_dir() else []


_REMEDY = "remove the checkpoint's directory to resume from the one before"


def _read(path: Path) -> Checkpoint:
    try:
        state = read_object(path / _STATE)
        made = state["format"]
        progress = _progress(state) if made == _FORMAT else None
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"checkpoint {path}: {_STATE} is damaged, missing or not of this package ({error!r}); {_REMEDY}"
        ) from error
    if progress is None:
        newer = isinstance(made, int) and made > _FORMAT
        raise ValueError(
            f"checkpoint {path}: format {made}, this version reads {_FORMAT}; go on with the version of this "
            f"package that wrote it{', a newer one' if newer else ''}, or choose another train.output_dir"
        )
    try:
        check_checksums(path, whole=True)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}; {_REMEDY}") from error
    if path.name != checkpoint_path(path, progress.step).name:
        raise ValueError(
            f"checkpoint {path}: it is of step {progress.step}, by its {_STATE}; give it its name back"
        )
    return Checkpoint(path, progress, state["config"])


def _progress(state: dict[str, Any]) -> Progress:
    return Progress(*(state[field.name] for field in fields(Progress)))


def _complete(root: Path) -> list[tuple[int, Path]]:
    found = [
        (match, path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted((int(match[1]), path) for match, path in found)


def rng_state() -> dict[str, Any]:
    """State of this process's torch, CUDA, numpy and Python generators, in types `torch.load` trusts."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what libraries use
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
