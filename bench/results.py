"""The form in which benchmark results are kept: one JSON object a run, one row a variant.

    {"machine", "versions", "commit", "date", "results": [row, ...]}

A row has the keys of `ROW`; times are milliseconds, memory bytes; None where something was not measured.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.compare import Timing, ratios
from elastic.files import write_atomic

ROOT = Path(__file__).parent.parent
ROW = (
    "op",
    "shape",
    "dtype",
    "device",
    "threads",
    "variant",
    "median_ms",
    "iqr_ms",
    "ratio_to_eager",
    "bytes",
    "ceiling_share",
    "peak_bytes",
)
PACKAGES = ("torch", "triton", "transformers", "liger-kernel", "flashinfer-python", "numpy")


def row(**values: Any) -> dict[str, Any]:
    """One variant of one op, in the order of `ROW`.

    Raises:
        ValueError: a key that is not in `ROW`.
    """
    if unknown := set(values) - set(ROW):
        raise ValueError(f"row: expected keys of {ROW}, got {sorted(unknown)}")
    return {key: values.get(key) for key in ROW}


def ratio_to(baseline: str, variant: str, timings: dict[str, Timing]) -> float | None:
    """How many times faster than the baseline, by wall time; None where that was not timed."""
    return ratios(timings, baseline, variant)[0] if baseline in timings else None


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The checkout's commit, marked where files differ; ELASTIC_COMMIT where a copy has no history."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return os.environ.get("ELASTIC_COMMIT", "unknown")
    return done.stdout.strip() if done.returncode == 0 else os.environ.get("ELASTIC_COMMIT", "unknown")


def facts(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made: everything of the object but its results."""
    return {
        "machine": machine(device),
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def machine(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"platform": platform.platform(), "cores": os.cpu_count()}
    if device.type != "cuda":
        return {**found, "device": platform.processor() or platform.machine()}
    properties = torch.cuda.get_device_properties(device)
    return {
        **found,
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": driver(),
        "cuda": torch.version.cuda,
    }


def driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None


def write(path: Path, run: dict[str, Any]) -> None:
    """Replaces the file in one step; a run that dies later leaves what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(run, indent=1) + "\n")
