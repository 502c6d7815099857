"""Fixtures and settings shared by every test."""

import os

import pytest
import torch
from hypothesis import settings

# Tiny tensors: a second OpenMP thread costs more than it gives on a shared machine.
torch.set_num_threads(1)
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device. Without one the test is skipped, or fails where ELASTIC_REQUIRE_CUDA=1."""
    if not torch.cuda.is_available():
        if os.environ.get("ELASTIC_REQUIRE_CUDA") == "1":
            pytest.fail("ELASTIC_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device("cuda")
