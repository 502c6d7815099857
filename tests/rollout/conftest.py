"""Fixtures of the rollout tests."""

import sys

import pytest
import torch

from elastic import RolloutEngine, Sampling
from elastic.rollout.attention import flash
from elastic.rollout.attention import slot_attention as attention
from tests.rollout.attention.oracle import FlashStandIn
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


@pytest.fixture
def stand_in(monkeypatch):
    """flash-attn that takes a CPU's tensors in float32."""
    found = FlashStandIn()
    monkeypatch.setitem(sys.modules, "fa3_fwd_interface", found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(attention, "flash_obstacle", lambda *_: "")
    monkeypatch.setattr(attention, "flex_obstacle", lambda *_: "")
    flash.kernel.cache_clear()
    yield found
    flash.kernel.cache_clear()
