"""What `run` gives back, and that it leaves nothing behind."""

import os
import subprocess
import sys
import threading
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from elastic.rewards.sandbox import PYTHON, Limits, reader, run, start
from elastic.rewards.sandbox.reader import Reader
from elastic.rewards.sandbox.run import _warn_once
from tests.rewards.sandbox.programs import FEW, living, needs_sandbox, python

BOTH = pytest.mark.parametrize(
    "sandbox", [pytest.param(True, marks=needs_sandbox), False], ids=["sandboxed", "bare"]
)
pytestmark = pytest.mark.filterwarnings("ignore:sandbox=False")


SLEEPER = "import os, time\nif os.fork() == 0: time.sleep(60)\n"


def held() -> tuple[list[str], list[str], set[str]]:
    """This process's children, open descriptors and temporary folders."""
    children = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    folders = {name for name in os.listdir("/tmp") if name.startswith("elastic-")}
    return sorted(" ".join(children).split()), sorted(os.listdir("/proc/self/fd")), folders


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@BOTH
def test_a_program_gets_its_files_and_input_and_gives_its_output_and_exit_code(sandbox):
    code = (
        "import sys\nprint(open('a/b.txt').read(), open('c', 'rb').read(), sys.stdin.read(), sys.argv)\n"
        "print('no', file=sys.stderr)\nopen('a/new', 'w').close()\nopen('c', 'w').close()\nsys.exit(3)"
    )
    files = {"a/b.txt": "zwölf", "c": b"\xff", "main.py": code}
    outcome = run([PYTHON, "main.py", "x"], files=files, stdin=b"in\n", limits=FEW, sandbox=sandbox)
    assert outcome.stdout.decode() == "zwölf b'\\xff' in\n ['main.py', 'x']\n"
    assert (outcome.status, outcome.exit_code, outcome.stderr) == ("error", 3, b"no\n")
    assert 0 < outcome.seconds < FEW.wall_s


@BOTH
def test_input_and_output_larger_than_a_pipe_pass_while_neither_side_waits(sandbox):
    data = bytes(range(256)) * (1 << 13)  # 2 MiB
    code = (
        "import sys\nfor part in iter(lambda: sys.stdin.buffer.read(7), b''): sys.stdout.buffer.write(part)"
    )
    limits = replace(FEW, output_bytes=len(data))
    outcome = run([PYTHON, "-c", code], stdin=data, limits=limits, sandbox=sandbox)
    assert (outcome.status, outcome.stdout == data) == ("ok", True)
    unread = run([PYTHON, "-c", ""], stdin=data, limits=limits, sandbox=sandbox)
    assert unread.status == "ok"


@BOTH
@pytest.mark.parametrize(
    ("code", "limits", "status", "exit_code"),
    [
        ("", {}, "ok", 0),
        ("1 / 0", {}, "error", 1),
        ("import time; time.sleep(60)", {"wall_s": 0.5}, "timeout", 137),
        ("while True: pass", {"cpu_s": 1}, "timeout", None),
        ("bytearray(1 << 40)", {}, "memory", 1),
        ("import os; os.write(1, bytes(101))", {"output_bytes": 100}, "output", None),
        ("import os; os.write(1, bytes(60)); os.write(2, bytes(40))", {"output_bytes": 100}, "ok", 0),
        ("import ctypes; ctypes.string_at(0)", {}, "killed", 139),
        ("import sys; sys.exit(255)", {}, "error", 255),
    ],
)
def test_the_status_names_the_end(code, limits, status, exit_code, sandbox):
    outcome = python(code, limits=replace(FEW, **limits), sandbox=sandbox)
    assert outcome.status == status
    assert outcome.stderr == b"" or status in {"error", "memory", "ok"}
    assert exit_code in (None, outcome.exit_code)


@BOTH
def test_nothing_is_left_of_runs_that_end_in_any_way(sandbox):
    python("", sandbox=sandbox)  # what is made once
    before, token = held(), uuid.uuid4().hex
    for code in ["", "1 / 0", SLEEPER, f"{SLEEPER}time.sleep(60)", f"{SLEEPER}while True: print('x' * 999)"]:
        python(code, token, limits=replace(FEW, wall_s=0.8), sandbox=sandbox)
    wait_for(lambda: not living(token))
    assert held() == before


@BOTH
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("place", [(Reader, "follow"), (Reader, "drain"), (os, "pidfd_open")])
def test_nothing_is_left_of_a_run_that_is_interrupted(place, error, sandbox, monkeypatch):
    check_interrupted(place, error, sandbox, monkeypatch)


@needs_sandbox
@pytest.mark.parametrize("place", [(start, "_first_process"), (os, "write")])
def test_nothing_is_left_of_a_sandbox_that_is_interrupted_while_it_is_made(place, monkeypatch):
    check_interrupted(place, KeyboardInterrupt, True, monkeypatch)


def check_interrupted(place, error, sandbox, monkeypatch):
    def interrupted(*_):
        raise error("now")

    python("", sandbox=sandbox)
    before, token = held(), uuid.uuid4().hex
    with monkeypatch.context() as patch:
        patch.setattr(*place, interrupted)
        with pytest.raises(error, match="now"):
            python(SLEEPER, token, sandbox=sandbox)
    wait_for(lambda: not living(token))
    assert held() == before


@needs_sandbox
def test_a_program_dies_with_a_killed_grader_though_it_tries_not_to():
    token = uuid.uuid4().hex
    program = "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)"
    program += "\nopen('ready', 'w').close()\ntime.sleep(60)"
    grader = (
        "import sys\nfrom elastic.rewards.sandbox import PYTHON, Limits, run\n"
        "run([PYTHON, '-c', *sys.argv[1:]], limits=Limits(wall_s=60))"
    )
    process = subprocess.Popen([sys.executable, "-c", grader, program, token])
    wait_for(lambda: any(Path(f"/proc/{pid}/root/tmp/program/ready").exists() for pid in living(token)))
    process.kill()
    process.wait()
    wait_for(lambda: not living(token))


@BOTH
def test_any_number_of_threads_may_run_programs(sandbox):
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: python(f"print({n})", sandbox=sandbox), range(24)))
    assert [outcome.stdout for outcome in outcomes] == [b"%d\n" % n for n in range(24)]
    assert threading.active_count() < 8


@needs_sandbox
def test_the_files_of_this_machine_are_not_counted_while_the_sandbox_is_made(monkeypatch):
    monkeypatch.setattr(reader, "_LOOK_SECONDS", 0.0)
    for _ in range(5):
        assert python("").status == "ok"


@needs_sandbox
def test_a_program_has_a_folder_of_its_own():
    assert python("open('/tmp/x', 'w'); open('x', 'w')").status == "ok"
    assert python("import os; print(os.listdir('/tmp'), os.listdir('.'))").stdout == b"['program'] []\n"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", ".", "a\0b"])
def test_a_file_outside_the_working_folder_is_refused(name):
    with pytest.raises(ValueError, match="inside the working folder"):
        run(["true"], files={name: ""}, sandbox=False)


def test_a_run_without_a_program_is_refused():
    with pytest.raises(ValueError, match="argv must name a program"):
        run([])


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_limits_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0 and finite, got"):
        Limits(**{name: value})


@pytest.mark.filterwarnings("default:sandbox=False")
def test_running_without_a_sandbox_warns_once():
    _warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="all rights of this process"):
        python("", sandbox=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        python("", sandbox=False)


@needs_sandbox
@pytest.mark.parametrize("late", [0, 0.3])
def test_a_sandbox_that_cannot_be_made_is_an_error_and_no_grade(late, monkeypatch):
    asked = start._first_process
    monkeypatch.setattr(start, "_first_process", lambda *fds: (time.sleep(late), asked(*fds))[1])
    monkeypatch.setattr("elastic.rewards.sandbox.command._system", lambda: ["--ro-bind", "/nowhere", "/usr"])
    with pytest.raises(RuntimeError, match=r"bubblewrap could not set up the sandbox: .*/nowhere"):
        python("")
