"""A saved random model, and the state that accelerate keeps for a process."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState

from tests.integrations.trl.runs import save_model


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(autouse=True)
def own_accelerate_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
