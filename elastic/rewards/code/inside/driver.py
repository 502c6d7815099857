"""Runs a program on several inputs, each in a process of its own, and hands on what it printed or returned.

What is expected is not known here, so that a program that tampers with this process, or writes into its
output, still has to come up with the right answers. Standard input has the plan, a JSON object; `input-N` in
the working folder has what test N reads, or the arguments of its call. Standard output gets for each test a
line of JSON, ``[status, bytes]``, with so many bytes behind it. The first test that is not "ok" is the last.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any, NoReturn

from elastic.rewards.code.inside.loading import PROGRAM, execute, limit, redirect, usual_names

_PIECE = 1 << 16
_DESCRIPTORS = 256  # more than a program may have


def main() -> None:
    """Runs the plan: `functions` by test, null for a test of input and output; limits of each test."""
    plan = json.load(sys.stdin)
    results = os.dup(1)
    with open(PROGRAM, encoding="utf-8") as file:
        source = file.read()
    names = usual_names()
    sys.path.pop(0)
    gc.freeze()  # else each process copies the pages of all objects that its collector marks
    for number, function in enumerate(plan["functions"]):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _begin(plan["cpu_s"], number, writer, is_call=function is not None)
            os.closerange(3, _DESCRIPTORS)  # the results among them
            if function is None:
                _end(execute(source, "__main__", names))
            _call(source, function, names)
        os.close(writer)
        status, printed = _follow(pid, reader, plan["wall_s"], plan["output_bytes"])
        os.close(reader)
        _write(results, json.dumps([status, len(printed)]).encode() + b"\n" + printed)
        if status != "ok":
            break


def _begin(cpu_s: float, number: int, writer: int, *, is_call: bool) -> None:
    os.setsid()
    limit(cpu_s)
    redirect(0, f"input-{number}", os.O_RDONLY)
    redirect(2, os.devnull)
    redirect(1, writer)
    if is_call:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process


def _end(namespace: dict[str, Any]) -> NoReturn:
    """What the interpreter does at the end of a script, but for taking its modules down: most of the time."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    namespace.clear()  # files that were never closed are written
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    os._exit(0)


def _call(source: str, function: str, names: dict[str, Any]) -> NoReturn:
    """Writes what the function returns, as JSON: a tuple is a list, and keys are texts."""
    with open(0, encoding="utf-8", closefd=False) as file:
        arguments = json.load(file)
    namespace = execute(source, "solution", names)
    method = getattr(namespace.get("Solution"), function, None)
    called = namespace[function] if method is None else getattr(namespace["Solution"](), function)
    _write(1, json.dumps(called(*arguments)).encode())
    os._exit(0)  # whatever threads are still at work


def _follow(pid: int, reader: int, wall_s: float, most: int) -> tuple[str, bytes]:
    """Status and output of a test; when this returns, its process group has ended."""
    deadline = time.monotonic() + wall_s
    ended = os.pidfd_open(pid)
    watched, printed, status = {reader, ended}, bytearray(), ""
    try:
        while not status:
            ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if reader in ready:  # before the end: what is left in the pipe belongs to the output
                piece = os.read(reader, _PIECE)
                printed += piece
                if not piece:
                    watched.discard(reader)
                elif len(printed) > most:
                    status = "output"
            elif ended in ready:
                status = "ended"
            else:
                status = "timeout"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.close(ended)
        _, code = os.waitpid(pid, 0)
    if status == "ended":
        status = "ok" if code == 0 else "error"
    return status, bytes(printed[:most])


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    main()
