"""Files: text that is read as UTF-8, writes that leave the old or the new content, SHA-256 sums."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKSUMS = "SHA256SUMS"
_BLOCK_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """A UTF-8 file's text, without the byte order mark that some editors put in front.

    Raises:
        ValueError: it is not UTF-8; names the file.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: it is not JSON, or no object; names the file.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line that is not blank; errors as of `read_text`."""
    # Not splitlines(): it would split at U+2028 and the like, which a line of text or JSON may hold.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removeprefix("\ufeff").rstrip("\r")  # concatenated files keep their byte order marks
        if line.strip():
            yield number, line


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step, so that a kill at any moment leaves the old or the new file.

    Args:
        path: its directory must exist.
        content: text is written as UTF-8.

    Raises:
        OSError: the directory is missing or not writable, or the disk is full; names `path`.
    """
    data = content.encode() if isinstance(content, str) else content
    # In the same directory: a rename across file systems is not atomic.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp gives 0600
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    sync(path.parent)  # else a power cut might bring the old file back, whatever was appended to the new one


def sync(path: Path) -> None:
    """Puts a file's content, or the names that a directory lists, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """Creates a directory and its parents, so that their names are on the disk, too."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(directory: Path) -> None:
    """Writes `SHA256SUMS` of every other file below a directory, as `sha256sum --check` reads it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = (f"{sha256(path)}  {path.relative_to(directory).as_posix()}\n" for path in files)
    write_atomic(directory / CHECKSUMS, "".join(lines))


def check_checksums(directory: Path, whole: bool = False) -> None:
    """Compares a directory with its `SHA256SUMS`.

    Args:
        directory: files that the list does not have are not looked at, unless
        whole: they are refused. A list that lost lines lists less than there is.

    Raises:
        ValueError: a listed file, or the list, is missing, changed or not readable as such.
    """
    try:
        lines = (directory / CHECKSUMS).read_text(encoding="ascii").splitlines()
        expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        if not expected:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory / CHECKSUMS} is missing or damaged ({error})") from error
    for name, digest in expected.items():
        path = directory / name
        if not path.is_file():
            raise ValueError(f"{path} is missing; {CHECKSUMS} lists it")
        if sha256(path) != digest:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {CHECKSUMS}")
    for path in sorted(directory.rglob("*")) if whole else ():
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in {CHECKSUMS, *expected}:
            raise ValueError(
                f"{path} is not in {CHECKSUMS}: the list is damaged, or the file does not belong"
            )
