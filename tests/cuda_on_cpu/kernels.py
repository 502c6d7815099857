"""Which kernels there are, and which of them ran."""

import re
from collections.abc import Mapping
from pathlib import Path

CSRC = Path(__file__).parent.parent.parent / "csrc" / "cuda"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(")


def in_sources() -> set[str]:
    """Names of the `__global__` functions of csrc/cuda."""
    sources = [path.read_text() for path in CSRC.glob("*.cu*")]
    return {name for source in sources for name in KERNEL.findall(source)}


def executed(launches: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The package's kernels among `launches`: name -> template instance -> launches."""
    known = in_sources()
    found: dict[str, dict[str, int]] = {}
    for instance, count in sorted(launches.items()):
        if (name := instance.split("<")[0]) in known:
            found.setdefault(name, {})[instance] = count
    return found
