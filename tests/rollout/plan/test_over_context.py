"""Prompts that do not fit the context: all refused, or left out with the reason."""

import warnings

import pytest
import torch

from elastic import Budget, RolloutBatch, RolloutEngine, replay
from elastic.rollout import OutOfContext
from tests.rollout.calls import HOT, assert_same
from tests.rollout.small_models import make_model

PROMPTS = [[5, 6, 2], [7] * 60 + [2], [8, 2], [9] * 70, [10, 2]]
WHY = {
    1: "budget: a prompt of 61 tokens and at most 8",
    3: "prompt: expected fewer tokens than the model's context of 64, got 70",
}


@pytest.fixture(scope="module")
def engine(tokenizer):
    return RolloutEngine(make_model(context=64), tokenizer, max_rows=3)


@pytest.fixture(scope="module")
def batch(engine):
    return engine.generate(PROMPTS, Budget(4, 3), 2, HOT, over_context="drop")


def test_the_others_keep_their_numbers_seeds_and_tokens(engine, batch):
    assert batch.prompts == PROMPTS
    assert batch.prompt_index.tolist() == [0, 0, 2, 2, 4, 4]
    short = [*PROMPTS[:1], [2], PROMPTS[2], [2], PROMPTS[4]]
    expected = engine.generate(short, Budget(4, 3), 2, HOT)[[0, 1, 4, 5, 8, 9]]
    assert_same(batch, expected, ("tokens", "seeds", "lengths", "finish_reason", "source"))
    replay(batch, Budget(4, 3), batch.markers)


def test_the_batch_says_which_were_dropped_and_why(batch):
    assert sorted(batch.dropped) == [1, 3]
    for prompt, why in WHY.items():
        assert batch.dropped[prompt].startswith(why)


def test_files_and_joined_batches_say_it_too_and_slices_do_not(batch, tmp_path):
    batch.save(tmp_path / "batch.safetensors")
    loaded = RolloutBatch.load(tmp_path / "batch.safetensors", batch.tokenizer)
    assert loaded.dropped == batch.dropped
    joined = RolloutBatch.cat([loaded, batch])
    assert joined.dropped == batch.dropped | {prompt + 5: why for prompt, why in batch.dropped.items()}
    assert batch[2:4].dropped == {}
    assert batch[2:4].prompts == [PROMPTS[2]]


def test_streams_drop_them_too(engine, batch):
    with engine.stream(PROMPTS, Budget(4, 3), 2, HOT, over_context="drop") as stream:
        rows = {event.row for event in stream}
    assert rows == set(range(6))
    assert torch.equal(stream.batch.tokens, batch.tokens)


def test_a_prompt_goes_with_all_its_rows(engine):
    budgets = [Budget(4, 3), Budget(40, 20), Budget(4, 3), Budget(4, 3)]
    found = engine.generate([[7] * 10 + [2], [5, 2]], budgets, 2, HOT, over_context="drop")
    assert found.prompt_index.tolist() == [1, 1]
    assert list(found.dropped) == [0]


def test_without_a_prompt_that_fits_it_is_an_error(engine):
    with pytest.raises(OutOfContext, match="prompts: none of 2 fits the context; prompt 0: prompt: expected"):
        engine.generate([[7] * 70, [8] * 80], Budget(4, 3), over_context="drop")


def test_other_errors_stay_errors(engine):
    budget = Budget(10, None, closing="time</think>")
    with pytest.raises(OutOfContext, match="prompt 0: max_new_tokens: expected at least 16"):
        engine.generate(PROMPTS, budget, max_new_tokens=9, over_context="drop")
    with pytest.raises(ValueError, match="prompts: prompt 1 is empty"):
        engine.generate([[5], []], over_context="drop")
    with pytest.raises(ValueError, match="over_context: expected 'raise' or 'drop', got 'skip'"):
        engine.generate(PROMPTS, over_context="skip")
    with pytest.raises(OutOfContext, match="prompt 1: "):
        engine.generate(PROMPTS, Budget(4, 3))


def test_nothing_is_warned_of_prompts_without_rows(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.generate([[5, 2], [2, *[6] * 70]], Budget(4, 3), over_context="drop")
