"""The forward of a step through `torch.compile`: when it is worth it, and what happens where it fails.

S slots, n rows of a step, L cache columns. A compilation serves one shape (n, S, L), as constants.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import torch

from elastic.rollout.step.step import forward

MODES = ("auto", "on", "off")

# A compilation takes about 30 s and takes about 3 ms off a step (a 1.5B model on an H200, in a prototype).
PAYS_STEPS = 10_000

_BACKEND = "inductor"


class Shape(NamedTuple):
    """What a compilation is for."""

    rows: int
    slots: int
    columns: int


class CompiledForward:
    """`step.forward`, compiled for the shapes that are worth it.

    Args:
        mode: "on" compiles every shape, "off" none. "auto" compiles one once `PAYS_STEPS` steps would have
            gained by it: those that were taken in it, and those that the call is about to take. So a shape
            that is not seen again costs at most about what compiling it would have.
    """

    def __init__(self, mode: str):
        self._mode = mode
        self._expected = 0
        self._taken: Counter[Shape] = Counter()
        self._due: dict[Shape, bool] = {}
        self._made: dict[Shape, Callable[..., None]] = {}

    @property
    def off(self) -> bool:
        """Whether nothing will be compiled."""
        return self._mode == "off"

    def begin(self, steps: int) -> None:
        """A call begins that takes about so many steps with all slots in use."""
        self._expected = steps
        self._due.clear()

    def due(self, shape: Shape) -> bool:
        """Whether steps of this shape are compiled, in this call."""
        if self.off:
            return False
        if shape not in self._due:
            ahead = self._expected if shape.rows == shape.slots else 0
            worth = self._taken[shape] + ahead >= PAYS_STEPS
            self._due[shape] = self._mode == "on" or shape in self._made or worth
        return self._due[shape]

    def took(self, shape: Shape) -> None:
        """Counts an uncompiled step that this shape would have served."""
        self._taken[shape] += 1

    def __call__(self, shape: Shape, *args: Any) -> None:
        """Runs `step.forward(*args)`, compiled. If that fails, a line says so and ends compiling."""
        if self.off:
            return forward(*args)
        if shape not in self._made:
            _say(f"compiling the decode step for {shape.rows} rows of {shape.columns} tokens")
            self._made[shape] = _compiled()
        try:
            self._made[shape](*args)
        except RuntimeError as error:
            # Nothing is lost: positions move last, and a column is written again with the same values.
            self._mode = "off"
            self._made.clear()
            forward(*args)  # an error of the model's own is raised here, and is none of compiling
            lines = str(error).strip().splitlines() or [""]
            _say(f"decode steps are not compiled: {type(error).__name__}: {lines[0][:200]}")


def expected_steps(tokens: Sequence[int], slots: int) -> int:
    """About how many steps rows take if none ends early.

    Args:
        tokens: of each row, as in `Needs`, which counts rows without a bound as a few hundred.
        slots: S.
    """
    return max(max(tokens), -(-sum(tokens) // slots))


def _compiled() -> Callable[..., None]:
    """A compilation of its own: one function object may be compiled for a few shapes only."""
    code = forward.__code__.replace()
    own = FunctionType(code, forward.__globals__, forward.__name__, forward.__defaults__)
    own.__kwdefaults__ = forward.__kwdefaults__
    return torch.compile(own, fullgraph=True, dynamic=False, backend=_BACKEND)


def _say(text: str) -> None:
    print(f"elastic: {text}", file=sys.stderr)
