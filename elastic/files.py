"""Files that are either old or new, never half written."""

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step, so that a kill at any moment leaves the old or the new file.

    Args:
        path: its directory must exist.
        content: text is written as UTF-8.

    Raises:
        OSError: the directory is missing or not writable.
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
    except BaseException:
        os.unlink(name)
        raise
