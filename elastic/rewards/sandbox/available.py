"""Whether programs can be sandboxed on this machine."""

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from elastic.rewards.sandbox.command import ENVIRONMENT, PYTHON, sandboxed
from elastic.rewards.sandbox.limits import Limits

_OLDEST = (0, 8)  # of bubblewrap: sizes of file systems came with 0.7, and no older one was tried
_WAY_ROUND = "or say sandbox=False (reward.sandbox = false) to run programs unprotected"
_SETTINGS = Path("/proc/sys")
_SWITCHES = {  # what forbids user namespaces -> the value that allows them
    "kernel/apparmor_restrict_unprivileged_userns": "0",
    "kernel/unprivileged_userns_clone": "1",
    "user/max_user_namespaces": "65536",
}


class SandboxMissing(RuntimeError):
    """Programs cannot be sandboxed here. The message says what to install or to switch on."""


def check_available() -> None:
    """Checks that a Python program can be sandboxed; once it could, the next calls cost nothing.

    Raises:
        SandboxMissing: bubblewrap is missing or too old, or the system forbids what it needs.
    """
    for command, package in {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux"}.items():
        if shutil.which(command, path=ENVIRONMENT["PATH"]) is None:
            raise SandboxMissing(
                f"running programs needs {command}: `apt install {package}` or `dnf install {package}`, "
                f"{_WAY_ROUND}"
            )
    _try_once()


@lru_cache(maxsize=1)
def _try_once() -> None:
    """Starts the interpreter in a sandbox; only success is remembered."""
    said = _said(["bwrap", "--version"]).stdout
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if version < _OLDEST:
        raise SandboxMissing(
            f"bubblewrap 0.8 or newer is needed, this is {said.strip()!r}: upgrade it, {_WAY_ROUND}"
        )
    result = _said(sandboxed([PYTHON, "-c", ""], {}, Limits(), []))
    if result.returncode != 0:
        raise SandboxMissing(f"bubblewrap cannot start ({result.stderr.strip()}){_hint()}, {_WAY_ROUND}")


def _said(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def _hint() -> str:
    """The sysctl that stands in the way, if one does."""
    for name, wanted in _SWITCHES.items():
        path = _SETTINGS / name
        if path.exists() and (path.read_text().strip() == "0") != (wanted == "0"):
            return f": allow user namespaces with `sysctl {name.replace('/', '.')}={wanted}`"
    return ": user namespaces or mounts are forbidden here, as in many containers"
