"""What recorded steps rest on besides addresses, and what is left when they are replayed or dropped."""

import pytest
import torch

import elastic.rollout.engine
import elastic.rollout.step.stepper
import elastic.rollout.step.workspace
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.step import signature
from tests.rollout.calls import HOT, PROMPTS, assert_same
from tests.rollout.small_models import steady
from tests.rollout.step.recorder import Recorder
from tests.rollout.step.test_captured_steps import NO_EOS, THOUGHTS, uncaptured


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(elastic.rollout.engine, "graphs_for", lambda device: recorder)
    return recorder


def same_memory(tensors):
    """As `signature.addresses` where an allocator gives what was freed to the next of the same size."""
    return tuple((t.dtype, tuple(t.shape), t.stride()) for t in tensors)


def test_a_cache_of_the_same_size_in_other_slots_is_recorded_anew(tokenizer, recorder, monkeypatch):
    monkeypatch.setattr(elastic.rollout.step.workspace, "_COLUMNS_STEP", 4)
    monkeypatch.setattr(elastic.rollout.step.stepper, "_LEAST_COLUMNS", 8)
    monkeypatch.setattr(signature, "addresses", same_memory)
    model = steady()
    engine = RolloutEngine(model, tokenizer, max_rows=4, refill_rows=1, **NO_EOS)
    plain = uncaptured(model, tokenizer, max_rows=4, **NO_EOS)
    calls = [(PROMPTS[:4], [Budget(n, 4) for n in (3, 3, 12, 12)]), (PROMPTS[:2], Budget(38, 15))]
    cells = []
    for prompts, budget in calls:
        batch = engine.generate(prompts, budget, sampling=HOT, phase="thinking")
        assert_same(batch, plain.generate(prompts, budget, sampling=HOT, phase="thinking"))
        cells.append([tuple(t.shape) for t in engine._stepper._space._cache.tensors])
    assert cells[0] == cells[1]
    assert recorder.pools == 2


def test_a_compaction_moves_what_replayed_steps_have_written(model, tokenizer, recorder, monkeypatch):
    monkeypatch.setattr(elastic.rollout.step.stepper, "_LEAST_COLUMNS", 8)
    options = {"max_rows": 6, "refill_rows": 1, "attention": "sdpa"}
    engine = RolloutEngine(model, tokenizer, **options)
    arguments = (PROMPTS, Budget(30, 20), 1, HOT)  # some rows end early, so that others move to their slots
    expected = uncaptured(model, tokenizer, **options).generate(*arguments)
    for _ in range(2):
        assert_same(engine.generate(*arguments), expected)
    other = Sampling(temperature=0.5, seed=3)
    engine.generate(["c<think>"] * 6, Budget(1, 1), sampling=other)  # recorded for few columns
    captured = recorder.captured
    batch = engine.generate(*arguments)
    assert recorder.captured == captured
    assert_same(batch, expected)
    torch.testing.assert_close(batch.full_logprobs, expected.full_logprobs, atol=2e-6, rtol=0)


def test_recordings_begin_another_pool_once_all_of_one_are_gone(tokenizer, recorder, monkeypatch):
    monkeypatch.setattr(elastic.rollout.step.stepper, "_MOST_RECORDINGS", 2)
    engine = RolloutEngine(steady(), tokenizer, max_rows=4, **NO_EOS)
    for temperature, tokens in ((1.0, 4), (0.9, 1), (0.8, 1), (0.7, 4)):  # one token: never recorded
        sampling = Sampling(temperature=temperature, seed=1)
        engine.generate(THOUGHTS[:4], sampling=sampling, max_new_tokens=tokens)
    assert (recorder.captured, recorder.pools) == (2, 2)


def test_recorded_steps_cast_weights_themselves(tokenizer, recorder):
    model = steady().to(torch.bfloat16)
    model.lm_head.float()  # as adapters in float32 over a model in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        engine = RolloutEngine(model, tokenizer, max_rows=4, **NO_EOS)
    batches = []
    for scale in (1.0, 1.0, 1.5):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        with torch.autocast("cpu", torch.bfloat16):  # keeps its casts of weights until it is left
            batches.append(engine.generate(THOUGHTS[:4], Budget(6, 4), sampling=HOT))
            assert torch.is_autocast_cache_enabled()
    assert (recorder.captured, recorder.pools) == (1, 1)
    assert_same(batches[1], batches[0])
    assert not torch.equal(batches[2].full_logprobs, batches[1].full_logprobs)
