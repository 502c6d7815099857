"""The project's metadata can be read by every setuptools that someone may build it with."""

import ensurepip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from elastic.train.config.train_config import tomllib

ROOT = Path(__file__).parent.parent
METADATA = ["--name", "--version", "--license"]


def metadata(*path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), *METADATA],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_setuptools_installed_here_reads_the_metadata():
    assert metadata() == ["elastic", "0.1.0", "Apache-2.0"]


def test_the_setuptools_that_python_bundles_reads_the_metadata(tmp_path):
    """65.5 in Python 3.10 and 3.11, which `pip install setuptools` does not upgrade."""
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("setuptools-*.whl"))
    if not bundled:
        pytest.skip("this Python bundles no setuptools")
    zipfile.ZipFile(bundled[0]).extractall(tmp_path)
    assert metadata(tmp_path) == ["elastic", "0.1.0", "Apache-2.0"]


def test_every_file_of_the_package_is_installed_with_it():
    """What is not Python is installed only if `package-data` names it."""
    listed = subprocess.run(["git", "ls-files", "elastic"], cwd=ROOT, capture_output=True, text=True)
    data = {name for name in listed.stdout.split() if not name.endswith(".py")}
    if not data:
        pytest.skip("not a git checkout")
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {
        path.relative_to(ROOT).as_posix()
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert data <= named
