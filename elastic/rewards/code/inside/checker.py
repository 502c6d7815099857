"""Runs a test that is a program, as HumanEval's ``check(candidate)``, against a solution in another process.

The solution's process is forked before the test is read, and its only ways out are two pipes. It can neither
trace this process nor look into it; this one takes nothing but plain values from it, and alone holds standard
output. So a solution does not pass that ends early, changes builtins, looks for the test in frames or files,
or returns an object that is equal to everything. Standard input has the test. Standard output gets ``passed``
if it ran through, ``failed`` if it raised, ``unusable: ...`` if it cannot run here, whatever the solution is.
"""

import builtins
import io
import os
import signal
import sys
from types import ModuleType
from typing import Any, NoReturn

from elastic.rewards.code.inside.loading import (
    PROGRAM,
    close_to_others,
    execute,
    limit,
    redirect,
    usual_names,
)
from elastic.rewards.code.inside.numpy_names import numpy_names
from elastic.rewards.code.inside.remote import Incoming, Outgoing, Returning, Sending, receive, send

_OF_A_TEST = (ModuleNotFoundError, SyntaxError)  # these say that a test cannot run; no solution may


class Solution:
    """The program at the other end of two pipes."""

    def __init__(self, answers: int, requests: int) -> None:
        self._answers, self._requests = answers, requests

    def names(self) -> dict[str, Any]:
        """What the program defines; functions and classes as `Remote`."""
        return self._answer()

    def ask(self, *request: Any) -> Any:
        """An attribute or a call; raises as the program does."""
        pickled = io.BytesIO()
        Sending(pickled, protocol=4).dump(request)
        send(self._requests, pickled)
        return self._answer()

    def _answer(self) -> Any:
        kind, value = Incoming(receive(self._answers), self.ask).load()
        if kind == "value":
            return value
        name, text = value
        error = getattr(builtins, str(name), None)
        if not (isinstance(error, type) and issubclass(error, Exception)) or issubclass(error, _OF_A_TEST):
            error = RuntimeError
        raise error(str(text))


def main() -> None:
    """Starts the solution, reads the test, runs it, and says how it ended."""
    close_to_others()
    sys.path.pop(0)  # the working folder, which the solution can write to
    with open(PROGRAM, encoding="utf-8") as file:
        source = file.read()
    (requests, to_solution), (from_solution, answers) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_solution)
        os.close(from_solution)
        _serve(source, requests, answers)
    os.close(requests)
    os.close(answers)
    # The first process of a sandbox is not ended by a signal without a handler.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
    test = sys.stdin.read()
    result = os.dup(1)
    redirect(1, os.devnull)
    redirect(2, os.devnull)
    os.write(result, _outcome(test, Solution(from_solution, to_solution)).encode())
    os._exit(0)


def _outcome(test: str, solution: Solution) -> str:
    sys.modules.update(numpy_names())
    usual = {name: value for name, value in usual_names().items() if isinstance(value, ModuleType)}
    try:
        # What the test does not define is the solution's, but never what `len` or `math` is.
        known = usual.keys() | vars(builtins).keys()
        defined = {str(key): value for key, value in solution.names().items()}
        own = {key: value for key, value in defined.items() if key not in known and key[:2] != "__"}
        execute(test, "test", usual | own)
    except _OF_A_TEST as error:
        return f"unusable: {type(error).__name__}: {error}"
    except BaseException:  # also of a test that ends the interpreter
        return "failed"
    return "passed"


def _serve(source: str, requests: int, answers: int) -> NoReturn:
    """The solution's process: runs the program, then does what the checker asks for."""
    try:
        limit(float(sys.argv[1]))
        for target in (0, 1, 2):
            redirect(target, os.devnull)
        kept: list[Any] = []
        usual = usual_names()
        namespace = execute(source, "solution", usual)
        defined = {
            name: value
            for name, value in namespace.items()
            if not (name.startswith("__") or value is usual.get(name) or isinstance(value, ModuleType))
        }
        _send(answers, ("value", defined), kept)
        while True:
            request = Returning(receive(requests), kept).load()
            try:
                answer = ("value", _do(*request))
            except Exception as error:
                answer = ("raised", (type(error).__name__, str(error)))
            _send(answers, answer, kept)
    finally:
        os._exit(1)


def _do(kind: str, target: Any, *rest: Any) -> Any:
    if kind == "get":
        return getattr(target, *rest)
    arguments, named = rest
    return target(*arguments, **named)


def _send(answers: int, message: Any, kept: list[Any]) -> None:
    pickled = io.BytesIO()
    Outgoing(pickled, kept).dump(message)
    send(answers, pickled)


if __name__ == "__main__":
    main()
