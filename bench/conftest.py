"""`pytest bench --benchmark-only`: one thread, and the tables of `python -m bench` at the end."""

import os

# Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

_OUTCOMES = pytest.StashKey[dict]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = {}


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> dict:
    """What was measured, by the number of the case."""
    return request.config.stash[_OUTCOMES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from bench.output import tables

    for outcome in config.stash[_OUTCOMES].values():
        terminalreporter.write_line(tables.block(outcome.rows, outcome.errors, outcome.skipped))
