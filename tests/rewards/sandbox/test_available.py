"""What is said where programs cannot be sandboxed."""

import subprocess
from pathlib import Path

import pytest

from elastic.rewards.sandbox import SandboxMissing, available, check_available, run
from tests.rewards.sandbox.programs import needs_sandbox

WAY_ROUND = "or say sandbox=False (reward.sandbox = false) to run programs unprotected"


@pytest.fixture(autouse=True)
def _asked_again():
    available._try_once.cache_clear()
    yield
    available._try_once.cache_clear()


def told() -> str:
    with pytest.raises(SandboxMissing) as raised:
        check_available()
    return str(raised.value)


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    """Makes shell commands the only ones that can be found."""
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setitem(available.ENVIRONMENT, "PATH", str(folder))


@pytest.mark.parametrize(
    ("commands", "command", "package"),
    [((), "bwrap", "bubblewrap"), (("bwrap",), "prlimit", "util-linux")],
)
def test_the_package_to_install_is_named(commands, command, package, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, **dict.fromkeys(commands, "exit 0"))
    message = told()
    assert message == (
        f"running programs needs {command}: `apt install {package}` or `dnf install {package}`, {WAY_ROUND}"
    )


def test_an_old_bubblewrap_is_named(tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, bwrap="echo bubblewrap 0.6.1", prlimit="", setpriv="")
    assert told() == f"bubblewrap 0.8 or newer is needed, this is 'bubblewrap 0.6.1': upgrade it, {WAY_ROUND}"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"user/max_user_namespaces": "0"}, "`sysctl user.max_user_namespaces=65536`"),
        ({"kernel/unprivileged_userns_clone": "0"}, "`sysctl kernel.unprivileged_userns_clone=1`"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "9"},
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        ({"user/max_user_namespaces": "9"}, "forbidden here, as in many containers"),
    ],
)
def test_a_system_that_forbids_it_is_told_with_the_switch(settings, hint, tmp_path, monkeypatch):
    words = '[ "$1" = --version ] && echo bubblewrap 0.9.0 && exit; echo bwrap: no permissions >&2; exit 1'
    put(tmp_path, monkeypatch, bwrap=words, prlimit="", setpriv="")
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(available, "_SETTINGS", tmp_path)
    message = told()
    assert message.startswith("bubblewrap cannot start (bwrap: no permissions): ")
    assert hint in message
    assert message.endswith(WAY_ROUND)
    assert "\n" not in message


def test_nothing_runs_without_a_sandbox_unless_told_so(tmp_path, monkeypatch):
    put(tmp_path, monkeypatch)
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(SandboxMissing):
        run(["touch", str(tmp_path / "ran")])
    assert not started


@needs_sandbox
def test_a_sandbox_that_works_is_tried_once(monkeypatch):
    check_available()
    monkeypatch.setattr(available, "_said", lambda command: pytest.fail("tried again"))
    check_available()
