"""`python -m elastic.commands.parts.worker PART MODULE OUT SETTINGS`: one part, for `processes`."""

import os
import sys
import threading
from importlib import import_module
from pathlib import Path


def main() -> int:
    """Runs the part; the exit status."""
    part, module, out, settings = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import_module(module).run_part(part, Path(out), settings)
    except KeyboardInterrupt:  # the terminal's: the parent reports it
        return 130
    return 0


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even killed: its end of the pipe closes."""
    # Not sys.stdin: a thread that holds its lock when the interpreter ends is a fatal error.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
