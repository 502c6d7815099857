"""First updates of architectures of every kind in every precision; all others: `bench.architectures`."""

import pytest
import torch

from bench.architectures import build, inexact
from bench.exactness import PRECISIONS, WINDOW, first_update, wrong
from elastic.train.update import packing

pytestmark = pytest.mark.usefixtures("own_accelerate_state")

KINDS = (
    "llama",  # packed
    "gemma3_text",  # packed beyond its windows
    "gpt2",  # learned positions
    "mixtral",  # experts
    "gemma2",  # padded; soft caps in attention and head
    "gpt_oss",  # padded; attention sinks, experts
    "falcon",  # padded; an attention of its own
    "cohere2",  # logits scaled behind the head
    "deepseek_v3",  # latent attention
)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", KINDS)
def test_the_first_update_trains_the_policy_that_drew(name, precision):
    model = build(name, WINDOW)
    metrics = first_update(model, PRECISIONS[precision])
    assert wrong(name, precision, metrics) == ""
    assert metrics["mismatch_max"] > 0, "the rollout's forward is another one"


def shifted(*arguments):
    """Every second token is a position late."""
    packed = packing.pack(*arguments)
    packed.position_ids.add_(torch.arange(packed.position_ids.shape[1]) % 2)
    return packed


@pytest.mark.parametrize("precision", PRECISIONS)
def test_wrong_positions_are_seen_in_every_precision(monkeypatch, precision):
    monkeypatch.setattr("elastic.train.update.policy.pack", shifted)
    model = build("llama", WINDOW)
    assert "mismatch_abs" in wrong("llama", precision, first_update(model, PRECISIONS[precision]))


def test_a_policy_that_differs_from_itself_is_seen(monkeypatch):
    noise = iter(range(100))

    def noisy(model, head, packed):
        return packing.packed_hidden(model, head, packed) * (1 + 1e-6 * next(noise))

    monkeypatch.setattr("elastic.train.update.policy.packed_hidden", noisy)
    assert "update_kl" in inexact("llama", "float32")
