"""Programs that try to harm the machine, the grader or the next run.

Each function is sent into the sandbox as source text, with the modules imported here. `sys.argv` has a token
that marks the attack's processes, and the grader's process number.
"""

import contextlib
import ctypes
import inspect
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from elastic.rewards.sandbox import Limits
from tests.rewards.sandbox.programs import FEW

SHORT = replace(FEW, wall_s=0.8)
_IMPORTS = "import contextlib, ctypes, os, signal, sys, threading, time, zlib\n"


@dataclass(frozen=True)
class Attack:
    """A program, its limits, how it may end and the beginning of what it must print."""

    program: str
    limits: Limits
    ends: set[str]
    prints: bytes


ATTACKS: dict[str, Attack] = {}


def attack(*ends: str, prints: bytes = b"", limits: Limits = FEW) -> Callable[[Callable[[], None]], None]:
    """Puts the decorated function on the list."""

    def add(function: Callable[[], None]) -> None:
        source = inspect.getsource(function)
        name = function.__name__
        program = f"{_IMPORTS}{source[source.index('def ') :]}\n{name}()"
        ATTACKS[name] = Attack(program, limits, set(ends), prints)

    return add


@attack("timeout", limits=SHORT)
def forks_without_end():
    while True:
        with contextlib.suppress(OSError):
            os.fork()


@attack("ok", prints=b"15\n")
def starts_as_many_processes_as_it_can():
    count = 0
    with contextlib.suppress(OSError):
        while count < 1000:
            if os.fork() == 0:
                time.sleep(60)
            count += 1
    print(count)


@attack("ok", prints=b"15\n", limits=replace(FEW, memory_mb=4096))
def starts_as_many_threads_as_it_can():
    count = 0
    with contextlib.suppress(RuntimeError):
        while count < 1000:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            count += 1
    print(count, flush=True)
    os._exit(0)


@attack("memory")
def one_process_takes_all_memory():
    bytearray(1 << 40)


@attack("memory")
def many_processes_take_less_than_each_may():
    for _ in range(9):
        if os.fork() == 0:
            taken = b"x" * (100 << 20)
            time.sleep(60)
            print(len(taken))
    time.sleep(60)


@attack("memory", limits=replace(FEW, memory_mb=64))
def unpacks_a_bomb():
    packer = zlib.compressobj(level=1)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    zlib.decompress(packed)


@attack("memory", limits=replace(FEW, memory_mb=32))
def makes_very_many_empty_files():
    count = 0
    while True:
        open(f"/tmp/{count}", "w").close()
        count += 1


@attack("ok", prints=b"No space left on device\n8388608\n")
def fills_the_disk():
    try:
        for count in range(100):
            with open(str(count), "wb", buffering=0) as file:
                while file.tell() < 1 << 21:
                    file.write(bytes(1 << 12))
    except OSError as error:
        print(error.strerror)
    print(sum(os.path.getsize(name) for name in os.listdir()))


@attack("ok", prints=b"File too large\n")
def writes_a_sparse_file():
    with open("sparse", "wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            print(error.strerror)


@attack("output", prints=b"x" * 1000)
def writes_endless_output():
    while True:
        print("x" * 1000)


@attack("output")
def writes_endless_errors():
    while True:
        os.write(2, bytes(1000))


@attack("timeout", limits=SHORT)
def sleeps():
    time.sleep(60)


@attack("timeout", limits=SHORT)
def closes_its_streams_and_sleeps():
    os.closerange(0, 9)
    time.sleep(60)


@attack("timeout", limits=SHORT)
def ignores_signals():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


@attack("timeout", limits=SHORT)
def stops_itself():
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    os.wait()


@attack("ok", prints=b"done\n")
def leaves_a_daemon_that_holds_the_streams():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    print("done")


@attack("ok", prints=b"done\n")
def leaves_a_daemon_that_holds_nothing():
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 9)
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
    print("done")


@attack("ok", prints=b"done\n")
def kills_every_process_that_it_can_name():
    for process in {-1, os.getppid() or -1, int(sys.argv[2]), *range(1, 4000)} - {os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    print("done")


@attack("ok")
def ends_early():
    sys.exit(0)


@attack("error", prints=b"half")
def ends_without_clean_up():
    os.write(1, b"half")
    os._exit(7)


@attack("killed")
def crashes():
    ctypes.string_at(0)


@attack("killed")
def aborts():
    os.abort()


@attack("killed", "error", "memory")  # by the version of Python
def recurses_without_end():
    sys.setrecursionlimit(10**9)

    def again(_):
        return sorted([1, 2], key=again)

    again(0)
