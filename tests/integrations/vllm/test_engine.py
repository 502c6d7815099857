"""VLLMEngine: the rows and the record of `RolloutEngine`, decoded by the real vLLM."""

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.evaluate.engines import engine_name, open_engine
from elastic.integrations.vllm import VLLMEngine
from elastic.rollout.record.batch import TENSOR_FIELDS
from tests.integrations.vllm.sums import BUDGETS, SAMPLINGS, SUMS

PROMPTS = [f"{sum_} <think>" for sum_ in SUMS[:2]]
LOGPROBS = ("logprobs", "full_logprobs")


@pytest.fixture(scope="module")
def engine(vllm, tiny):
    """An engine with fewer rows at a time than a call has."""
    engine = open_engine("vllm", *tiny, max_rows=6)
    yield engine
    engine.close()


def assert_same(batch, own):
    for name in TENSOR_FIELDS:
        if name not in LOGPROBS:
            assert torch.equal(getattr(batch, name), getattr(own, name)), name
    for name in LOGPROBS:
        torch.testing.assert_close(getattr(batch, name), getattr(own, name), atol=1e-4, rtol=0)
    assert batch.markers == own.markers
    assert (batch.prompts, batch.eos_ids, batch.pad_id) == (own.prompts, own.eos_ids, own.pad_id)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=list(SAMPLINGS))
def test_rows_and_record_are_the_own_engines(engine, tiny, sampling):
    call = {"budget": BUDGETS, "samples_per_prompt": 5, "sampling": sampling, "seeds": range(10)}
    assert_same(engine.generate(PROMPTS, **call), RolloutEngine(*tiny).generate(PROMPTS, **call))


def test_kept_sets_are_the_own_engines(engine, tiny):
    sampling = Sampling(1.5, top_k=9, top_p=0.9, most_kept=1, seed=2)
    kept = [made.generate(PROMPTS, BUDGETS[:2], 4, sampling).kept for made in (engine, RolloutEngine(*tiny))]
    assert torch.equal(kept[0].counts, kept[1].counts)
    assert torch.equal(kept[0].ids, kept[1].ids)
    assert (kept[0].counts < 0).any() & (kept[0].counts > 0).any()


def test_starts_may_be_stated_and_prompts_be_ids(engine, tiny):
    prompts = [tiny[1].encode(SUMS[0]), tiny[1].encode(f"{SUMS[1]} <think> so"), tiny[1].encode(SUMS[2])]
    call = {
        "budget": Budget(20, 9),
        "phase": ["opening", "thinking", "solution"],
        "thinking_used": [0, 15, 3],
        "sampling": Sampling(1.0, seed=4),
    }
    assert_same(engine.generate(prompts, **call), RolloutEngine(*tiny).generate(prompts, **call))


def test_unlimited_rows_end_at_max_new_tokens(engine, tiny):
    call = {"max_new_tokens": 12, "sampling": Sampling(0.0, seed=1)}
    batch = engine.generate(PROMPTS, **call)
    assert_same(batch, RolloutEngine(*tiny).generate(PROMPTS, **call))
    assert batch.lengths.tolist() == [12, 12]


def test_a_call_without_a_seed_records_the_one_it_drew(engine):
    first = engine.generate(PROMPTS, Budget(8, 6))
    again = engine.generate(PROMPTS, Budget(8, 6), sampling=Sampling(seed=first.run_seed))
    assert torch.equal(first.tokens, again.tokens)


def test_bad_calls_are_refused_before_vllm_sees_them(engine):
    with pytest.raises(ValueError, match=r"prompt 0: .*context"):
        engine.generate(PROMPTS, Budget(2000, 6))
    with pytest.raises(ValueError, match="samples_per_prompt: expected 1 or more, got 0"):
        engine.generate(PROMPTS, Budget(8, 6), samples_per_prompt=0)


def test_it_is_an_engine_of_evaluations(engine):
    assert engine_name(engine) == "vllm"
    assert isinstance(engine, VLLMEngine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_rows": 0}, "max_rows: expected an integer from 1, got 0"),
        ({"speculative_config": {}}, "speculative_config: expected none, the engine sets it itself"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size: expected none, .* itself; got 2"),
        ({"max_length": 4096}, "max_length: expected at most the model's context of 1024"),
    ],
)
def test_options_that_cannot_be_kept_are_refused_before_vllm_starts(vllm, tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        VLLMEngine(*tiny, **changes)
