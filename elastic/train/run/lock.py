"""One run at a time in an output directory."""

import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK_FILE = "run.lock"
_HELD: set[int] = set()  # descriptors of this process


class OutputLock:
    """The lock of an output directory, held by a run's main process.

    It is a `flock` on a file: it ends with the process, however that ends, so none is ever stale, and a
    second run of the same process is refused, too. The file stays; while a run lives, it says which. On NFS
    Linux makes it the server's, which other hosts see; a server without locks causes a warning.

    Args:
        output: the run's directory.
    """

    def __init__(self, output: Path) -> None:
        self._output, self._path = output, output / LOCK_FILE
        self._file: int | None = None

    @contextmanager
    def held(self, accelerator: Any) -> Iterator[None]:
        """Holds the lock during the block; every process of the run calls it.

        Raises:
            ValueError: another run holds it, or the directory cannot be written; in every process.
        """
        problem: list[str | None] = [None]
        if accelerator.is_main_process:
            try:
                self._acquire()
            except (ValueError, OSError) as error:
                problem[0] = str(error)
        try:
            if accelerator.num_processes > 1:
                from accelerate.utils import broadcast_object_list

                broadcast_object_list(problem)
            if problem[0] is not None:
                raise ValueError(problem[0])
            yield
        finally:
            self._release()

    def check(self) -> None:
        """Call before what is worth keeping is written.

        Raises:
            OSError: the directory was removed or replaced since the lock was taken.
        """
        if self._file is None:
            return
        held = os.fstat(self._file)
        try:
            now = self._path.stat()
        except OSError:
            now = None
        if now is None or (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino):
            raise OSError(
                f"train.output_dir: {self._output} was removed or replaced while this run was writing there"
            )

    def _acquire(self) -> None:
        try:
            self._output.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(f"train.output_dir: {self._output} cannot be written: {error}") from error
        try:
            _lock(file, fcntl.LOCK_EX, self._output)
        except ValueError:
            os.close(file)
            raise
        self._file = file
        _HELD.add(file)
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        os.ftruncate(file, 0)  # a killed run has left its own
        os.pwrite(file, json.dumps(holder).encode(), 0)

    def _release(self) -> None:
        if self._file is not None and self._file in _HELD:
            _HELD.remove(self._file)
            os.ftruncate(self._file, 0)
            os.close(self._file)
        self._file = None


def check_unlocked(output: Path) -> None:
    """Finds a run in the directory before anything is loaded; ValueError as of `OutputLock.held`."""
    if not (output / LOCK_FILE).exists():
        return
    file = os.open(output / LOCK_FILE, os.O_RDONLY)
    try:
        _lock(file, fcntl.LOCK_SH, output)
    finally:
        os.close(file)


def _lock(file: int, kind: int, output: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"train.output_dir: another run is writing into {output}: {_holder(file)}; wait for its end, "
            "stop it, or choose another directory"
        ) from None
    except OSError as error:
        warnings.warn(
            f"the file system of {output} has no locks ({error}): a second run there would not be noticed",
            stacklevel=4,
        )


def _holder(file: int) -> str:
    try:
        holder = json.loads(os.pread(file, 1000, 0))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said which process it is"


def _forget() -> None:
    # A worker forked by the run must not hold the lock for as long as it outlives the run.
    for file in _HELD:
        os.close(file)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget)
