"""Forked children, and with them the processes of a data-parallel group: imports are there already."""

import os
import signal
import socket
import traceback
from collections.abc import Callable

from accelerate.state import AcceleratorState

LIMIT_S = 600  # a process whose partner is gone would wait for it half an hour


def start(work: Callable[[], object]) -> int:
    """Forks a child that does `work` and ends; returns its id.

    Its exit status is 0 where `work` returned; what it raised is on stderr.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(LIMIT_S)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def status(child: int) -> int:
    """The exit status of a child; minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def fork(rank: int, port: int, work: Callable[[], object]) -> int:
    """Starts process `rank` of two, which does `work` under accelerate on the CPU; returns its id."""

    def in_group() -> None:
        os.environ |= {
            "ACCELERATE_USE_CPU": "true",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
        }
        AcceleratorState._reset_state(reset_partial_state=True)
        work()

    return start(in_group)
