"""Calling the command in this process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from elastic.commands.cli import main


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def elastic(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs `elastic ARGUMENTS` and gives its status and both streams."""
    monkeypatch.delenv("ELASTIC_TRACEBACK", raising=False)
    # `main` sets it for the process; undone after the test.
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")

    def run(*arguments: object) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
