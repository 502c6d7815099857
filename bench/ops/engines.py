"""Engines for the benches, by attention and by how a step is launched."""

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any
from unittest import mock

from bench.ops.rollout import EOS, MARKERS, make_tokenizer
from elastic import RolloutEngine
from elastic.rollout import engine as module

UNCAPTURED, CAPTURED, COMPILED = "uncaptured", "captured", "compiled"
EngineOf = Callable[[Any, int, str, str], Any]


def engine_of(model: Any, rows: int, attention: str, mode: str) -> RolloutEngine:
    """An engine for prompts of token ids.

    Args:
        attention: as `RolloutEngine` takes it.
        mode: steps launched one by one, as one CUDA graph each, or that and compiled.

    Raises:
        ValueError: an attention that cannot run here; says what is missing.
    """
    tokenizer = make_tokenizer(model.config.vocab_size)
    options: dict[str, Any] = {"attention": attention, "compile": "on" if mode == COMPILED else "off"}
    no_graphs = mock.patch.object(module, "graphs_for", return_value=None)
    with no_graphs if mode == UNCAPTURED else nullcontext():
        return RolloutEngine(model, tokenizer, MARKERS, rows, eos_ids=EOS, progress=False, **options)


@contextmanager
def as_asked() -> Iterator[None]:
    """Makes errors of what an engine only says: that it steps otherwise than it was asked to.

    Raises:
        RuntimeError, UserWarning: steps are not captured, or not compiled.
    """
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()) as said:
        warnings.filterwarnings("error", message="decode steps are not")
        yield
    if said.getvalue():
        print(said.getvalue(), end="", file=sys.stderr)
    if "decode steps are not" in said.getvalue():
        raise RuntimeError(said.getvalue().strip())
