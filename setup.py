"""Builds `elastic._C` by running CMake and Ninja; CMakeLists.txt names the sources and the flags.

Environment: ELASTIC_CUDA=auto|on|off (default auto), ELASTIC_CUDA_ARCHS, MAX_JOBS.
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configures and builds the extension straight into the place setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        # One build tree per interpreter and torch, so that switching environments never mixes objects.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{_torch_tag()}"
        build.mkdir(parents=True, exist_ok=True)
        options = {
            "Python_EXECUTABLE": sys.executable,
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target,
            "ELASTIC_VERSION": self.distribution.get_version(),
            "ELASTIC_CUDA": os.environ.get("ELASTIC_CUDA", "auto"),
        }
        if archs := os.environ.get("ELASTIC_CUDA_ARCHS"):
            options["ELASTIC_CUDA_ARCHS"] = archs
        defines = [f"-D{name}={value}" for name, value in options.items()]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        # pip runs us without activating the environment, so its cmake and ninja may not be on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        env = {**os.environ, "PATH": path}
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *defines]
        for command in (configure, ["cmake", "--build", str(build), "--parallel", jobs]):
            if subprocess.run(command, env=env).returncode != 0:
                sys.exit("elastic: the build failed; the reason stands above")


def _torch_tag() -> str:
    try:
        import torch
    except ImportError:
        sys.exit("elastic: install torch first, then build with `pip install --no-build-isolation .`")
    return f"torch-{torch.__version__}"


setup(
    license="Apache-2.0",
    ext_modules=[Extension("elastic._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
