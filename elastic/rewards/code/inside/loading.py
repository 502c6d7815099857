"""Loading a program as the sets of tasks expect it: with the usual imports made, under limits of its own."""

import builtins
import ctypes
import importlib
import math
import os
import random
import resource
import sys
from types import ModuleType
from typing import Any

PROGRAM = "program.py"
_RECURSION = 50_000  # as LiveCodeBench's own runner allows
_STACK_BYTES = 256 << 20
# Starter code uses names of `typing`, and solutions those of the rest, without importing them.
MODULES = (
    *("bisect", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math"),
    *("operator", "os", "random", "re", "statistics", "string", "sys", "time", "typing"),
)
_STARRED = ("bisect", "collections", "functools", "heapq", "itertools", "math", "string", "typing")
_NOT_DUMPABLE = (4, 0)  # PR_SET_DUMPABLE of prctl(2)


def usual_names() -> dict[str, Any]:
    """Modules by name, and what they export; no builtin is hidden (`math.pow` hides one)."""
    names: dict[str, Any] = {}
    for name in _STARRED:
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", None) or [key for key in vars(module) if key[0] != "_"]
        names |= {key: getattr(module, key) for key in exported if not hasattr(builtins, key)}
    return names | {name: importlib.import_module(name) for name in MODULES}


def close_to_others() -> None:
    """Lets no other process of the same user read this one's memory or descriptors, or trace it."""
    if ctypes.CDLL(None, use_errno=True).prctl(*_NOT_DUMPABLE, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def limit(seconds: float) -> None:
    """Bounds the processor time of this process from now on, and allows what deep recursion needs."""
    for kind, bound in ((resource.RLIMIT_CPU, math.ceil(seconds)), (resource.RLIMIT_STACK, _STACK_BYTES)):
        _, hard = resource.getrlimit(kind)
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
    sys.setrecursionlimit(_RECURSION)
    if hasattr(sys, "set_int_max_str_digits"):  # tasks on huge numbers print them
        sys.set_int_max_str_digits(0)
    random.seed(0)  # so that a program that draws gets the same grade again


def redirect(target: int, path_or_fd: str | int, flags: int = os.O_RDWR) -> None:
    """Makes a standard descriptor another file."""
    source = os.open(path_or_fd, flags) if isinstance(path_or_fd, str) else path_or_fd
    os.dup2(source, target)
    os.close(source)


def execute(source: str, name: str, names: dict[str, Any]) -> dict[str, Any]:
    """Runs a program as a module of that name; returns its namespace."""
    module = ModuleType(name)
    sys.modules[name] = module
    sys.argv[:] = [PROGRAM]
    namespace = vars(module)
    namespace.update(names)
    exec(compile(source, PROGRAM, "exec"), namespace)
    return namespace
