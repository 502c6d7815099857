"""vLLM's V2 runner on a CPU: its Triton kernels run in Triton's interpreter.

Import this before anything of vLLM, in a process of its own.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

os.environ |= {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_CI_ENV": "1",  # no compilation to warm up
    "HF_HUB_OFFLINE": "1",
}

import numpy as np
import triton.backends
from triton import language
from triton.language.extra import libdevice
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


class _Driver:
    """vLLM asks for a driver before it believes in Triton; the interpreter needs none."""

    @staticmethod
    def is_active() -> bool:
        return True


triton.backends.backends.clear()
triton.backends.backends["cpu"] = SimpleNamespace(driver=_Driver, compiler=None)


def _boolean(mask: TensorHandle) -> TensorHandle:
    """Masks of Python's own truth values come as integers, which this Triton's interpreter refuses."""
    return TensorHandle(mask.data.astype(np.bool_), mask.dtype)


_load, _store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store


def _masked_load(self: Any, pointers: Any, mask: Any, *more: Any) -> Any:
    return _load(self, pointers, _boolean(mask), *more)


def _masked_store(self: Any, pointers: Any, value: Any, mask: Any, *more: Any) -> Any:
    return _store(self, pointers, value, _boolean(mask), *more)


InterpreterBuilder.create_masked_load = _masked_load
InterpreterBuilder.create_masked_store = _masked_store


def _log1p(x: Any) -> Any:
    """The interpreter has no libdevice."""
    return language.log(x + 1.0)


libdevice.log1p = _log1p
