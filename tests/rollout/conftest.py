"""Fixtures of the rollout tests."""

import pytest

from elastic import RolloutEngine, Sampling
from tests.rollout.records import BUDGETS, PROMPTS
from tests.rollout.small_models import make_model, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def batch(model, tokenizer):
    """Four rows of each of three prompts, under a budget each."""
    engine = RolloutEngine(model, tokenizer)
    return engine.generate(PROMPTS, BUDGETS, 4, Sampling(temperature=1.0, seed=6))
