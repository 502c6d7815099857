"""Directories that are there as a whole or not at all: through kills, full disks and power cuts."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from elastic.data.files import make_directory, sync

_UNFINISHED = ".unfinished-"
_REPLACED = ".replaced-"
# What writing raises where the disk is full or broken: Python, torch.save, safetensors.
_WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)


def write_directory(target: Path, write: Callable[[Path], None]) -> None:
    """Creates or replaces a directory in one step, its content synced to the disk.

    Written under another name; then, in this order, its files, the directories that list them, the rename and
    the parent that lists the new name reach the disk. After a power cut the name therefore stands for all of
    the content or is not there. What it replaces is moved aside before and removed after the rename: a kill
    between the two leaves it for `clear_left_overs` to move back.

    Args:
        target: what is there stays in every case but success.
        write: puts the files into the directory it is given.

    Raises:
        OSError: it could not be written; names the target and says how much space is free. Nothing of it
            is left, so that a full disk does not stay full.
    """
    temporary, aside = (target.parent / f"{prefix}{target.name}" for prefix in (_UNFINISHED, _REPLACED))
    make_directory(target.parent)
    try:
        _delete(temporary)
        temporary.mkdir()
        write(temporary)
        for path in (*temporary.rglob("*"), temporary):
            sync(path)
        if target.exists() or target.is_symlink():
            _delete(aside)
            os.rename(target, aside)
        os.rename(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _restore(aside)
        if isinstance(error, _WRITE_ERRORS):
            raise _failure(target, error) from error
        raise
    sync(target.parent)
    _delete(aside)


def remove_directory(path: Path) -> None:
    """Removes a directory so that a kill in between leaves nothing under its name."""
    doomed = path.parent / f"{_UNFINISHED}removed-{path.name}"
    _delete(doomed)
    os.rename(path, doomed)
    _delete(doomed)


def clear_left_overs(root: Path) -> None:
    """Removes what a kill left in a directory; what was being replaced goes back to its place."""
    for aside in root.glob(f"{_REPLACED}*"):
        _restore(aside)
    for unfinished in root.glob(f"{_UNFINISHED}*"):
        _delete(unfinished)


def check_space(target: Path, needed: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        target: what is to be written.
        needed: bytes, at least.

    Raises:
        OSError: less is free; names the target and both numbers.
    """
    free = free_space(target)
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"no space for it: needs {gigabytes(needed)}, {gigabytes(free)} are free; free some and start "
            "again to go on",
            str(target),
        )


def free_space(path: Path) -> int:
    """Bytes that this user may write on the file system of a path, which need not be there yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def gigabytes(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e7 else f"{count / 1e3:,.0f} kB"


def _restore(aside: Path) -> None:
    target = aside.parent / aside.name.removeprefix(_REPLACED)
    if aside.exists() and not target.exists():
        os.rename(aside, target)
    else:
        _delete(aside)


def _delete(path: Path) -> None:
    """Removes whatever is under a name; a symbolic link, not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _failure(target: Path, error: Exception) -> OSError:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return OSError(
        number,
        f"could not be written ({error}); {gigabytes(free_space(target))} are free; nothing of it is left, "
        "what was there before is untouched, and the run can go on from there",
        str(target),
    )
