"""Builds the shim's Python module when the first test asks for it, and loads it."""

import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parent.parent.parent
# setup.py's build tree: the CPU objects in it are shared.
TREE = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-torch-{torch.__version__}"
MODULE = TREE / "tests" / "cuda_on_cpu" / "_cuda_on_cpu.so"


def run(*command: str) -> None:
    """Runs a command of the build.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise RuntimeError(f"cuda_on_cpu: {' '.join(command)} failed:\n{(done.stdout + done.stderr)[-8000:]}")


def build() -> Path:
    """Brings the module up to date, one process at a time, and returns where it lies."""
    TREE.mkdir(parents=True, exist_ok=True)
    with open(TREE / "cuda_on_cpu.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (TREE / "build.ninja").exists():
            python = f"-DPython_EXECUTABLE={sys.executable}"
            run("cmake", "-S", str(ROOT), "-B", str(TREE), "-G", "Ninja", python)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        run("cmake", "--build", str(TREE), "--target", "cuda_on_cpu", "--parallel", jobs)
    return MODULE


def load() -> ModuleType:
    """The module, built if need be; its ops stand under torch.ops.elastic_cuda_on_cpu."""
    spec = importlib.util.spec_from_file_location("_cuda_on_cpu", build())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
