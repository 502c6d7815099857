"""What a program can see and touch: nothing outside its sandbox. Each case succeeds without one."""

import json
import os
import platform
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic.rewards.sandbox.filter import _JUDGED, _MACHINES, program
from tests.rewards.sandbox.programs import FEW, needs_sandbox, python

pytestmark = needs_sandbox
ROOT = Path(__file__).parents[3]

_FRAME = """
import ctypes, json, os, resource, site, socket, sys
given = json.loads(sys.argv[1])

def call(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as client:
        client.connect(address)

try:
    {code}
except (OSError, ValueError) as error:
    print("denied")
else:
    print("done")
"""

# what any user may do outside
OUTSIDE = {
    "read a file": "open(given['secret']).read()",
    "read the repository": "os.listdir(given['repository'])",
    "read the users": "open('/etc/passwd').read()",
    "write a file": "open(given['secret'], 'a').write('x')",
    "make a file": "open(given['secret'] + '.new', 'w')",
    "write through a link": "os.symlink(given['secret'], 'link'); open('link', 'a').write('x')",
    "see the folder for temporary files": "os.stat(os.path.dirname(given['secret']))",
    "connect": "connect(socket.AF_INET, ('127.0.0.1', given['port']))",
    "connect to a name": "connect(socket.AF_UNIX, given['socket'])",
    "connect to an abstract name": "connect(socket.AF_UNIX, '\\0' + given['abstract'])",
    "find the grader": "os.kill(given['grader'], 0)",
    "read of the grader": "open(f\"/proc/{given['grader']}/status\").read()",
}
# what nobody may do inside, or root alone outside
INSIDE = {
    "read passwords": "open('/etc/shadow')",
    "write to the system": "open('/usr/x', 'w')",
    "write at the top": "open('/x', 'w')",
    "write to the devices": "open('/dev/x', 'w')",
    "write to the interpreter": "open(os.path.join(sys.base_prefix, 'x'), 'w')",
    "write to its packages": "open(os.path.join(site.getsitepackages()[0], 'x'), 'w')",
    "write to the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w')",
    "restart the machine": "open('/proc/sysrq-trigger', 'w')",
    "type into the terminal": "open('/dev/tty')",
    "become root": "os.setuid(0)",
    "change an owner": "open('mine', 'w'); os.chown('mine', 0, 0)",
    "mount": "call('mount', b'x', b'/tmp', b'tmpfs', 0, None)",
    "unmount": "call('umount2', b'/tmp', 2)",
    "remount to write": "call('mount', None, b'/usr', None, 32 | 4096, None)",
    "leave the root": "os.chroot('.')",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_AS, (1 << 60, 1 << 60))",
    "raise the number of processes": "resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))",
    "write its input": "os.write(os.open('/proc/self/fd/0', os.O_WRONLY), b'x')",
}
# what the filter of system calls adds
FILTERED = {
    "a user namespace": "call('unshare', 0x10000000)",
    "a user namespace for a child": "call('syscall', given['clone'], 0x10000011, 0, 0, 0, 0)",
    "trace a process": "call('ptrace', 0, 0, 0, 0)",
    "a socket to the host of a virtual machine": "socket.socket(40, socket.SOCK_STREAM)",
    "a socket to the kernel": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "memory without a process": "os.memfd_create('x')",
    "memory of System V": "call('shmget', 1, 4096, 0o1600)",
    "outlive the grader": "call('prctl', 1, 0, 0, 0, 0)",
}


@pytest.fixture
def given(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A secret, listeners and a process outside."""
    (secret := tmp_path / "secret").write_text("42")
    abstract = f"elastic-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(str(tmp_path / "socket"))
        named.listen()
        with socket.socket(socket.AF_UNIX) as unnamed:
            unnamed.bind("\0" + abstract)
            unnamed.listen()
            yield {
                "secret": str(secret),
                "repository": str(ROOT),
                "port": server.getsockname()[1],
                "socket": str(tmp_path / "socket"),
                "abstract": abstract,
                "grader": os.getpid(),
                "clone": _JUDGED["clone"][_MACHINES[platform.machine()][0]] if program() else 0,
            }


def attempt(code: str, given: dict[str, Any], sandbox: bool = True) -> bytes:
    outcome = python(_FRAME.replace("{code}", code), json.dumps(given), sandbox=sandbox)
    assert outcome.status == "ok", outcome
    return outcome.stdout.strip()


@pytest.mark.parametrize("name", [*OUTSIDE, *INSIDE])
def test_a_program_can_not(name, given):
    assert attempt({**OUTSIDE, **INSIDE}[name], given) == b"denied"
    assert Path(given["secret"]).read_text() == "42"


@pytest.mark.filterwarnings("ignore:sandbox=False")
@pytest.mark.parametrize("name", OUTSIDE)
def test_without_a_sandbox_a_program_can(name, given):
    assert attempt(OUTSIDE[name], given, sandbox=False) == b"done"


@pytest.mark.skipif(not program(), reason="no filter for this machine")
@pytest.mark.parametrize("name", FILTERED)
def test_a_program_may_not_ask_the_kernel_for(name, given, monkeypatch):
    assert attempt(FILTERED[name], given) == b"denied"
    if "virtual machine" not in name:  # which may be unknown to the kernel
        monkeypatch.setattr("elastic.rewards.sandbox.start.program", lambda: b"")
        assert attempt(FILTERED[name], given).startswith(b"done")


def test_a_program_sees_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("API_TOKEN", "hunter2")
    outcome = python(
        "import os\nprint(dict(os.environ))\nfor process in filter(str.isdigit, os.listdir('/proc')):\n"
        " if os.access(f'/proc/{process}/environ', os.R_OK): print(open(f'/proc/{process}/environ').read())"
    )
    assert outcome.status == "ok"
    assert b"PATH" in outcome.stdout
    assert b"hunter2" not in outcome.stdout


def test_a_program_sees_its_own_processes_and_no_name_of_the_machine():
    code = "import os, socket; print(*(p for p in os.listdir('/proc') if p.isdigit()), socket.gethostname())"
    assert python(code).stdout in {b"1 sandbox\n", b"1 2 sandbox\n"}  # itself, and for root a shell above it


def test_every_namespace_is_the_programs_own():
    kinds = ["ipc", "mnt", "net", "pid", "uts"] + ["user"] * (os.geteuid() != 0)
    code = "import os, sys; print(*(os.readlink(f'/proc/self/ns/{kind}') for kind in sys.argv[1:]))"
    inside = python(code, *kinds).stdout.decode().split()
    outside = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert [link.split(":")[0] for link in inside] == kinds
    assert not set(inside) & set(outside)


def test_two_places_can_be_written_and_nothing_on_a_disk():
    lines = python("print(open('/proc/self/mounts').read())").stdout.decode().split("\n")
    mounts = {line.split()[1]: line.split()[2:4] for line in lines if line}
    writable = {place: kind for place, (kind, how) in mounts.items() if how.split(",")[0] != "ro"}
    kernels = {"proc", "devtmpfs", "devpts"}  # and devices as bubblewrap chooses them
    assert {place for place, kind in writable.items() if kind not in kernels and place[:5] != "/dev/"} == {
        "/tmp"
    }
    assert writable["/dev/shm"] == "tmpfs"
    assert all({"nosuid"} <= set(how.split(",")) for _, how in mounts.values())


def test_a_program_gets_no_open_file_of_the_grader(tmp_path):
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        links = "[os.readlink(f'/proc/self/fd/{n}')[:5] for n in range(3)]"
        outcome = python(f"import os; print({links}, len(os.listdir('/proc/self/fd')))")
    assert outcome.stdout == b"['/memf', 'pipe:', 'pipe:'] 4\n"  # the fourth lists them


def test_a_program_has_no_privilege_and_can_get_none():
    lines = python("print(open('/proc/self/status').read())").stdout.decode().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert "0" not in status["Uid"].split()
    assert set(status["Groups"].split()) <= {status["Gid"].split()[0], "65534"}


def test_the_interpreter_has_its_standard_library_and_no_packages():
    outcome = python("import json, heapq, decimal, site; import numpy", limits=replace(FEW, memory_mb=512))
    assert outcome.status == "error"
    assert outcome.stderr.strip().endswith(b"No module named 'numpy'")


def test_the_home_directory_has_nothing_but_the_way_to_the_interpreter():
    code = "import os, sys; print(*os.listdir(sys.argv[1]) if os.path.isdir(sys.argv[1]) else [])"
    listed = python(code, str(Path.home())).stdout.decode().split()
    assert set(listed) <= set(Path(os.path.realpath(sys.base_prefix)).parts)
