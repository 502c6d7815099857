"""The few names of numpy that HumanEval+ tests use, over Python's own numbers.

Packages are not in the sandbox, and loading numpy would take longer than most tests.
"""

import math
from types import ModuleType
from typing import Any


def allclose(value: Any, wanted: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether numbers, or nested lists of the same shape, differ by at most ``atol + rtol * abs(wanted)``."""
    if isinstance(value, list | tuple) and isinstance(wanted, list | tuple):
        return len(value) == len(wanted) and all(
            allclose(left, right, rtol, atol) for left, right in zip(value, wanted, strict=True)
        )
    if math.isinf(value) or math.isinf(wanted):
        return bool(value == wanted)
    return bool(abs(value - wanted) <= atol + rtol * abs(wanted))


def assert_allclose(value: Any, wanted: Any, rtol: float = 1e-7, atol: float = 0.0) -> None:
    """Raises AssertionError unless `allclose`."""
    assert allclose(value, wanted, rtol, atol)


class ndarray:
    """Nothing is one: what comes from the program are lists."""


def numpy_names() -> dict[str, ModuleType]:
    """Modules for `sys.modules`. Another name raises ModuleNotFoundError: the test cannot run here."""
    testing, numpy = _module("numpy.testing"), _module("numpy")
    vars(testing).update(assert_allclose=assert_allclose)
    vars(numpy).update(
        allclose=allclose, ndarray=ndarray, float64="float64", float32="float32", testing=testing
    )
    return {"numpy": numpy, "numpy.testing": testing}


def _module(name: str) -> ModuleType:
    def missing(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise ModuleNotFoundError(f"{name}.{attribute} is not in the sandbox")

    module = ModuleType(name)
    vars(module)["__getattr__"] = missing
    return module
