"""The command lines: what bubblewrap mounts and separates, and the limits that the kernel holds."""

import math
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from elastic.rewards.sandbox.limits import Limits

PYTHON = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
"""The interpreter for programs: this one's, without the packages of a virtual environment."""

FOLDER = "/tmp/program"  # where a sandboxed program starts
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
_UIDS = range(61184, 65520)  # systemd's range for services without a user of their own
_DESCRIPTORS = 128
_WAIT = 'exec 3>&2 2>/dev/null; (exec "$@" 2>&3 3>&-); exit $?'  # without the shell's own words on the end
_SHARED_BYTES = 16 << 20  # of /dev/shm


def limited(argv: Sequence[str], limits: Limits, processes: bool) -> list[str]:
    """A program under the kernel's limits, set by prlimit.

    Not by `preexec_fn`, which may lock up where this process has threads.

    Args:
        argv: the program and its arguments.
        limits: see there.
        processes: whether to limit their number; outside a sandbox the user's other processes would count.
    """
    memory, file = limits.memory_mb << 20, limits.file_mb << 20
    bounds = {"as": memory, "cpu": math.ceil(limits.cpu_s), "fsize": file, "core": 0, "nofile": _DESCRIPTORS}
    if processes:
        bounds["nproc"] = limits.processes
    return ["prlimit", *(f"--{name}={value}:{value}" for name, value in bounds.items()), "--", *argv]


def sandboxed(
    argv: Sequence[str], files: Mapping[str, int], limits: Limits, descriptors: list[str]
) -> list[str]:
    """A program under the kernel's limits and in namespaces of its own, started by bubblewrap.

    Nothing in the namespace outlives its process 1, the program or its parent, and bubblewrap waits for that.

    Args:
        argv: the program and its arguments.
        files: path in the working folder -> descriptor to read its contents from.
        limits: see there.
        descriptors: bubblewrap's options that name descriptors.
    """
    size = ["--perms", "1777", "--size"]
    return [
        "bwrap",
        *["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"],
        *["--hostname", "sandbox", "--new-session", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"],
        *(_as_root() if os.geteuid() == 0 else ["--unshare-user", "--uid", "1000", "--gid", "1000"]),
        *["--proc", "/proc", "--dev", "/dev", *size, str(_SHARED_BYTES), "--tmpfs", "/dev/shm"],
        *["--remount-ro", "/dev", *size, str(limits.file_mb << 20), "--tmpfs", "/tmp", *_system()],
        *["--perms", "0777", "--dir", FOLDER, "--chdir", FOLDER],
        *(part for name, fd in files.items() for part in _file(name, fd)),
        *["--remount-ro", "/", *descriptors, "--"],
        *(_as_nobody() if os.geteuid() == 0 else []),
        *limited(argv, limits, processes=True),
    ]


def _file(name: str, fd: int) -> list[str]:
    """A file of the working folder, read from a descriptor, in folders that the program can write."""
    path = f"{FOLDER}/{name}"
    return [*_folders(path, FOLDER, "0777"), "--perms", "0666", "--file", str(fd), path]


def _folders(path: str, below: str = "/", mode: str = "0755") -> list[str]:
    """The folders on the way to a path, which bubblewrap would make for their owner alone."""
    there = PurePosixPath(below, "_").parents
    missing = [folder for folder in PurePosixPath(path).parents if folder not in there]
    return [part for folder in reversed(missing) for part in ["--perms", mode, "--dir", str(folder)]]


def _as_root() -> list[str]:
    """What root keeps until it has become somebody else inside.

    A user namespace would only rename it: its files and its missing bound on processes would stay root's.
    """
    return ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]


def _as_nobody() -> list[str]:
    """From root to a user without anything, below a shell that stays root's as process 1.

    When this process is killed, bubblewrap's end must be process 1's, and its signal reaches root's alone.
    The user is drawn, because the limit on processes counts a user's.
    """
    user = _UIDS[secrets.randbelow(len(_UIDS))]
    identity = [
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    return ["sh", "-c", _WAIT, "sh", "setpriv", *identity, "--"]


@lru_cache(maxsize=1)
def _system() -> list[str]:
    """Mounts of the system and of the interpreter, read-only, without the packages installed in them."""
    mounts = ["--ro-bind", "/usr", "/usr", *_folders("/etc/ld.so.cache")]
    mounts += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for path in map(Path, ["/bin", "/sbin", "/lib", "/lib32", "/lib64"]):
        if path.is_symlink():
            mounts += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            mounts += ["--ro-bind", str(path), str(path)]
    prefix = os.path.realpath(sys.base_prefix)
    if not Path(prefix).is_relative_to("/usr"):
        mounts += [*_folders(prefix), "--ro-bind", prefix, prefix]
    prefixes = {Path(prefix), Path("/usr"), Path("/usr/local")}
    for path in sorted(path for root in prefixes for path in root.glob("lib*/python3*/*-packages")):
        mounts += ["--tmpfs", str(path), "--remount-ro", str(path)]
    return mounts
