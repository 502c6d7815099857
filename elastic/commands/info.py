"""What is installed and what was built: the facts a bug report needs."""

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

import elastic

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def collect() -> dict[str, Any]:
    """Facts about the package, its extension, torch and the machine, JSON-serialisable.

    Never fails because something is missing. Without the extension, `extension.error` holds the reason in one
    line and the other entries of `extension` are None.
    """
    import torch

    devices = [
        {
            "name": torch.cuda.get_device_name(index),
            "capability": "{}.{}".format(*torch.cuda.get_device_capability(index)),
            "memory_bytes": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in range(torch.cuda.device_count())
    ]
    return {
        "version": elastic.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in ("torch", "transformers", "accelerate", "flash-attn")},
        "extension": _extension(),
        "cuda": {"available": torch.cuda.is_available(), "torch": torch.version.cuda, "devices": devices},
        "threads": {
            "cores": os.cpu_count(),
            "torch": torch.get_num_threads(),
            "torch_interop": torch.get_num_interop_threads(),
            "environment": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        },
    }


def text(facts: dict[str, Any]) -> str:
    """The facts of `collect` for reading, one per line."""
    packages, extension, cuda, threads = (facts[key] for key in ("packages", "extension", "cuda", "threads"))
    lines = [
        ("elastic", facts["version"]),
        ("python", f"{facts['python']} on {facts['platform']}"),
        *((name, version or "not installed") for name, version in packages.items()),
    ]
    if extension["error"]:
        lines.append(("extension", extension["error"]))
    else:
        archs = ", ".join(extension["cuda_archs"]) or "none"
        built = f"CUDA {extension['nvcc']} for {archs}" if extension["cuda"] else "CPU only"
        lines += [
            ("extension", f"built for torch {extension['torch']}, {built}"),
            ("CPU kernels", f"{extension['isa']} in use, built for {', '.join(extension['isas'])}"),
        ]
    found = ", ".join(f"{device['name']} (sm {device['capability']})" for device in cuda["devices"])
    lines.append(("CUDA device", found or f"none (torch built for CUDA: {cuda['torch'] or 'no'})"))
    variables = "".join(f", {name}={value}" for name, value in threads["environment"].items())
    lines.append(("threads", f"{threads['torch']} of {threads['cores']} cores{variables}"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extension() -> dict[str, Any]:
    try:
        from elastic.ops._extension import load_extension

        extension = load_extension()
    except ImportError as error:
        keys = ("torch", "cuda", "cuda_archs", "nvcc", "isa", "isas")
        return {"error": str(error), **dict.fromkeys(keys)}
    built = extension.build_info()
    return {
        "error": None,
        "torch": built["torch"],
        "cuda": built["cuda"],
        "cuda_archs": built["cuda_archs"].replace(";", " ").split(),
        "nvcc": built["nvcc"] or None,
        "isa": extension.cpu_isa(),
        "isas": built["isas"].split(),
    }
