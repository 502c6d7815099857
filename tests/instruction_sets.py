"""The instruction sets that this processor can run, whatever ELASTIC_CPU_ISA asks this process to use."""

import functools
import os
import subprocess
import sys

from elastic.ops import _extension

SETS = ("DEFAULT", "AVX2", "AVX512")
PROGRAM = "from elastic.ops import _extension; print(_extension.load_extension().cpu_isa())"


def built() -> list[str]:
    """Sets that the extension has kernels for."""
    return _extension.load_extension().build_info()["isas"].split()


@functools.cache
def processors_best() -> str:
    """The set that is picked where nothing is asked for."""
    environment = {name: value for name, value in os.environ.items() if name != "ELASTIC_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
