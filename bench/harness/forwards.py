"""What of a call is spent in a model's forward, and how many of its forwards are decode steps. For a CPU."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass
class Forwards:
    """Attributes:
    seconds: in forwards, by the clock that counts.
    steps: forwards of one token a row.
    """

    seconds: float = 0.0
    steps: int = 0


@contextmanager
def watched(model: Any, clock: Callable[[], float] = time.process_time) -> Iterator[Forwards]:
    """Counts a model's forwards within the block."""
    found, forward = Forwards(), model.forward

    @functools.wraps(forward)  # `generate` looks at its arguments
    def timed(*args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        begin = clock()
        out = forward(*args, **kwargs)
        found.seconds += clock() - begin
        found.steps += ids.shape[1] == 1
        return out

    with mock.patch.object(model, "forward", timed):
        yield found
