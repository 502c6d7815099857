"""Fixtures of the rollout tests."""

import pytest

from tests.rollout.small_models import make_model, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model():
    return make_model()
