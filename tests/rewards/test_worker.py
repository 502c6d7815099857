"""math-verify in its own process: limits that hold anywhere, and what is left of it afterwards."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from elastic.rewards import worker as module
from elastic.rewards.worker import Worker

ENDLESS = r"(10^{9})!"  # one huge product: Python runs no signal handler while it is computed


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(seconds=0.3)
    yield worker
    worker.close()


def process(worker: Worker) -> subprocess.Popen[bytes]:
    assert worker._process is not None
    return worker._process


def test_a_pair_beyond_the_limit_of_time_is_different_and_the_next_one_is_judged(worker):
    assert worker.same(r"\sqrt{8}", r"2\sqrt{2}")
    first = process(worker)
    assert not worker.same(ENDLESS, "5")
    assert first.returncode == -signal.SIGPROF
    assert worker.same(r"\sqrt{8}", r"2\sqrt{2}")


def test_the_limit_of_time_holds_in_a_thread(worker):
    results = []
    thread = threading.Thread(target=lambda: results.append(worker.same(ENDLESS, "5")))
    thread.start()
    thread.join()
    assert results == [False]


def test_a_pair_beyond_the_limit_of_memory_is_different_and_the_next_one_is_judged(monkeypatch):
    greedy = "from elastic.rewards import verify\nown = verify.same\n"
    greedy += "verify.same = lambda a, b: own(a, b) if a != 'too much' else bytes(1 << 30) == b''\n"
    monkeypatch.setattr(module, "_CODE", module._CODE.replace("from", greedy + "from"))
    worker = Worker(seconds=30, memory_bytes=300 << 20)
    try:
        assert worker.same("x+x", "2x")
        limits = Path(f"/proc/{process(worker).pid}/limits").read_text()
        assert str(300 << 20) in next(line for line in limits.splitlines() if "address space" in line)
        first = process(worker)
        assert not worker.same("too much", "1")
        assert first.returncode == 3
        assert worker.same("x+x", "2x")
    finally:
        worker.close()


def test_a_process_that_waits_for_ever_is_replaced(worker, monkeypatch):
    assert worker.same("x+x", "2x")
    first = process(worker)
    first.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_WALL_SECONDS", 0.1)
        assert not worker.same("x+x", "2x")
    assert first.returncode == -signal.SIGKILL
    assert worker.same("x+x", "2x")


def test_a_process_that_was_killed_is_replaced(worker):
    assert worker.same("x+x", "2x")
    process(worker).kill()
    process(worker).wait()
    assert worker.same("x+x", "2x")


def test_a_process_that_is_killed_before_it_is_ready_is_started_again(worker, monkeypatch, tmp_path):
    starts = tmp_path / "starts"
    dies = f"import os\nwith open({str(starts)!r}, 'a') as file: file.write('.')\n"
    dies += f"if os.path.getsize({str(starts)!r}) < 3: os.kill(os.getpid(), 9)\n"
    monkeypatch.setattr(module, "_CODE", dies + module._CODE)
    assert worker.same("x+x", "2x")
    assert starts.read_text() == "..."


@pytest.mark.parametrize("started", [False, True])
def test_an_interrupted_pair_leaves_no_answer_to_the_next_one(started, worker, monkeypatch):
    if started:
        assert worker.same("x+x", "2x")

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.same("x", "y")
    assert worker.same("x+x", "2x")


def test_signals_to_the_whole_group_leave_it_to_the_parent_to_end(worker):
    assert worker.same("x+x", "2x")
    first = process(worker)
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGINT)
    assert worker.same("x+x+x", "3x")
    assert process(worker) is first


def test_threads_get_the_answers_to_their_own_pairs(worker):
    wrong = []

    def ask(number: int) -> None:
        for step in range(5):
            same = worker.same(rf"\sqrt{{{number}}}\cdot{step}", rf"{step}\sqrt{{{number + step % 2}}}")
            if same != (step in (0, 2, 4)):
                wrong.append((number, step))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (2, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("busy", [False, True])
def test_the_process_ends_with_a_parent_that_was_killed(busy):
    code = (
        "import threading, time\n"
        "from elastic.rewards.worker import Worker\n"
        "worker = Worker(seconds=0.5); worker.same('x', 'y'); print(worker._process.pid, flush=True)\n"
        + (f"worker.same(r'{ENDLESS}', '5')\n" if busy else "time.sleep(600)\n")
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    handle = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with os.fdopen(handle) as ended:  # readable when the process has ended
        assert select.select([ended], [], [], 60)[0]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(1)", ".* said nothing"),
        ("import os\nos.kill(os.getpid(), 9)", ".* said nothing"),
        ("import sys\nsys.modules['math_verify'] = None" + module._CODE, "ModuleNotFoundError.*math_verify"),
    ],
)
def test_a_process_that_cannot_start_is_said(code, reason, monkeypatch):
    monkeypatch.setattr(module, "_CODE", code)
    with pytest.raises(RuntimeError, match=f"math_reward: .* math-verify did not start: {reason}"):
        Worker().same("x", "y")
