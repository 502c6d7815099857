"""Programs run in the sandbox here, as they do in training."""

import pytest

from elastic.rewards.sandbox import SandboxMissing, check_available


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Skips where there is none; the message says what to install."""
    try:
        check_available()
    except SandboxMissing as error:
        pytest.skip(str(error))
