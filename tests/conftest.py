"""Fixtures and settings shared by every test."""

import importlib.util
import os

import pytest
import torch

# Tiny tensors: a second OpenMP thread costs more than it gives on a shared machine.
torch.set_num_threads(1)
# `make gpu` runs the tests marked cuda with what a GPU machine happens to have.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    settings.register_profile("default", deadline=None, derandomize=True)
    settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the `cuda` fixture carry the marker `cuda`: `pytest -m cuda`."""
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("cuda")


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device. Without one the test is skipped, or fails where ELASTIC_REQUIRE_CUDA=1."""
    if not torch.cuda.is_available():
        if os.environ.get("ELASTIC_REQUIRE_CUDA") == "1":
            pytest.fail("ELASTIC_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device("cuda")
