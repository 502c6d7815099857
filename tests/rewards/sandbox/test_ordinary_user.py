"""The same as an ordinary user, where the suite runs as root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rewards.sandbox.programs import needs_sandbox

ROOT = Path(__file__).parents[3]
NOBODY = 65534


@needs_sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the other tests here have run as an ordinary user")
def test_an_ordinary_user_is_protected_as_well():
    tests = [
        str(Path(__file__).with_name(name)) for name in ("test_attacks.py", "test_access.py", "test_run.py")
    ]
    options = ["--noconftest", "-rs", "-p", "no:cacheprovider", "-k", "not bare and not without_a_sandbox"]
    result = as_nobody([sys.executable, "-m", "pytest", *options, *tests])
    if "user namespaces" in result.stdout + result.stderr:
        pytest.skip("user namespaces are forbidden to ordinary users here")
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout


def as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command as an ordinary user.

    Root's home is closed to others. Where it holds the interpreter or this repository, the user sees a home
    that holds only them.
    """
    home = Path("/root")
    inside = {Path(os.path.realpath(path)) for path in (sys.base_prefix, sys.prefix, ROOT)}
    mounts = ["--dev-bind", "/", "/", "--perms", "0755", "--tmpfs", str(home)]
    for path in sorted(path for path in inside if path.is_relative_to(home)):
        for folder in list(reversed(path.relative_to(home).parents))[1:]:
            mounts += ["--perms", "0755", "--dir", str(home / folder)]
        mounts += ["--ro-bind", str(path), str(path)]
    identity = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["bwrap", *mounts, "--", *identity, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
