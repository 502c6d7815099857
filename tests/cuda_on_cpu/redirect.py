"""Puts the shim's ops in the place of the CPU ops for a while."""

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

NAMESPACE = "elastic_cuda_on_cpu"


def op_names() -> list[str]:
    """Names of the ops that the shim implements, without the namespace."""
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith(f"{NAMESPACE}::")]
    implemented = [n for n in names if torch._C._dispatch_has_kernel_for_dispatch_key(n, "CPU")]
    return sorted({name.split("::")[1].split(".")[0] for name in implemented})


@contextmanager
def redirected() -> Iterator[None]:
    """`torch.ops.elastic.*` on CPU tensors runs the CUDA kernels."""
    shim = getattr(torch.ops, NAMESPACE)
    with torch.library._scoped_library("elastic", "IMPL") as library:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Warning only once for all operators"
            )  # overridden: yes
            for name in op_names():
                library.impl(name, getattr(shim, name).default, "CPU", allow_override=True)
        yield


@contextmanager
def poisoned_outputs() -> Iterator[None]:
    """`empty` tensors are full of NaN, or of the largest integer: outputs that nobody writes are seen."""
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


@contextmanager
def running(kernels: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """The ops run their CPU kernels ("cpu"), or their CUDA kernels ("cuda_on_cpu"); outputs begin as NaN.

    Each test has a schedule of its own; ELASTIC_CUDA_ON_CPU_SEED=N gives all of them others.
    """
    with poisoned_outputs():
        if kernels == "cpu":
            yield
            return
        shift = int(os.environ.get("ELASTIC_CUDA_ON_CPU_SEED", "0")) << 32
        request.getfixturevalue("shim").set_seed(zlib.crc32(request.node.nodeid.encode()) + shift)
        with redirected():
            yield
