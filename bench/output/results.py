"""The form in which benchmark results are kept: one JSON object a run, one row a variant.

    {"machine", "versions", "commit", "date", "results": [row, ...]}

A row has the keys of `ROW`; times are milliseconds, memory bytes; None where something was not measured.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from elastic.data.files import write_atomic

ROOT = Path(__file__).parents[2]
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
    "kind",  # `ours`, `baseline`, or `floor`: no way to do the job, but what none can do without
    "model",  # whose sizes these are
    "axis",  # the size that a scaling curve runs over
    "at",  # its value
    "items",  # tokens, or whatever one call makes
    "rounds",
    "clock",  # what median_ms is of: `cpu` or `wall` of the host, `device`
    "wall_ms",
    "cpu_ms",
    "steps",  # decode steps of what median_ms is of
    "outside",  # share of the time that is not spent in the model
)
PACKAGES = ("torch", "triton", "transformers", "liger-kernel", "trl", "flashinfer-python", "numpy")


def row(**values: Any) -> dict[str, Any]:
    """One variant of one op, in the order of `ROW`.

    Raises:
        ValueError: a key that is not in `ROW`.
    """
    if unknown := set(values) - set(ROW):
        raise ValueError(f"row: expected keys of {ROW}, got {sorted(unknown)}")
    return {key: values.get(key) for key in ROW}


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
        isa = torch.backends.cpu.get_cpu_capability()
        return {**found, "device": processor(), "isa": isa, "memory_bytes": memory_bytes()}
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


def processor() -> str:
    """The processor's name as its maker writes it, without marks and clock."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    name = (names or [platform.processor() or platform.machine()])[0]
    return re.sub(r"\((R|TM)\)|CPU|@.*", "", name).strip()


def memory_bytes() -> int | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def slug(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def file_name(run: dict[str, Any], device: torch.device) -> str:
    """`cpu-<processor>-<cores>-cores-<date>.json`, `cuda-<device>-<date>.json`; names no host."""
    machine = run["machine"]
    cores = f"{machine['cores']} cores" if device.type == "cpu" else ""
    return f"{slug(device.type, machine['device'], cores, run['date'])}.json"


def driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None


def read(path: Path) -> dict[str, Any]:
    """A run that `write` kept.

    Raises:
        ValueError: the file holds something else.
    """
    run = json.loads(path.read_text())
    if not isinstance(run, dict) or not isinstance(run.get("results"), list):
        raise ValueError(f"{path}: expected the JSON that `python -m bench --json` writes")
    return run


def write(path: Path, run: dict[str, Any]) -> None:
    """Replaces the file in one step; a run that dies later leaves what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(run, indent=1) + "\n")
