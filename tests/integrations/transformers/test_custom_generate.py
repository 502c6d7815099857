"""`custom_generate`: the own engine behind `model.generate`, and what it refuses of generate's arguments."""

import pytest
import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import GenerateDecoderOnlyOutput, MaxTimeCriteria

from elastic import Budget, RolloutEngine, Sampling
from elastic.integrations.transformers import BudgetLogitsProcessor, custom_generate
from elastic.models import tiny
from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT
from tests.integrations.transformers.players import assert_written, padded
from tests.rollout.calls import FIELDS, assert_same

BUDGET = Budget(8, 12)


@pytest.fixture(scope="module")
def engine():
    return RolloutEngine(*tiny.load(), max_rows=4)


@pytest.fixture(scope="module")
def prompts(engine):
    return [engine.tokenizer.encode(problem.prompt) for problem in tiny.problems(3, 5, "test")]


@pytest.fixture(scope="module")
def inputs(engine, prompts):
    return padded(prompts, engine.tokenizer.pad_token_id)


@pytest.mark.parametrize("samples", [1, 3])
def test_rows_are_those_of_the_engine_under_generates_sampling(engine, prompts, inputs, samples):
    custom = custom_generate(engine, BUDGET)
    sampling = {"do_sample": True, "temperature": 1.2, "top_k": 9, "top_p": 0.9, "min_p": 0.01}
    sequences = engine.model.generate(
        **inputs, custom_generate=custom, **sampling, num_return_sequences=samples, max_new_tokens=50
    )
    own = Sampling(1.2, top_k=9, top_p=0.9, min_p=0.01, seed=custom.batch.run_seed)
    assert_same(custom.batch, engine.generate(prompts, BUDGET, samples, own), FIELDS)
    assert_written(sequences, inputs, custom.batch)


def test_without_sampling_it_is_greedy_and_the_default_of_20_tokens_is_no_limit(engine, prompts, inputs):
    custom = custom_generate(engine, Budget(30, 9))
    engine.model.generate(**inputs, custom_generate=custom)
    expected = engine.generate(prompts, Budget(30, 9), sampling=Sampling(0, seed=0))
    assert_same(custom.batch, expected, FIELDS)
    assert custom.batch.lengths.max() > 20


def test_torchs_seed_repeats_a_call(engine, inputs):
    def sampled(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return engine.model.generate(
            **inputs, custom_generate=custom_generate(engine, BUDGET), do_sample=True
        )

    assert torch.equal(sampled(1), sampled(1))
    assert not torch.equal(sampled(1), sampled(2))


def test_prompts_without_padding_need_no_mask(engine, prompts):
    custom = custom_generate(engine, BUDGET)
    ids = torch.tensor([prompts[0]])
    sequences = engine.model.generate(ids, custom_generate=custom)
    assert_written(sequences, {"input_ids": ids}, custom.batch)


def test_it_returns_what_generate_returns_and_pads_as_it_is_told(engine, inputs):
    custom = custom_generate(engine, Budget(2, 4))
    out = engine.model.generate(
        **inputs, custom_generate=custom, return_dict_in_generate=True, pad_token_id=7, do_sample=True
    )
    assert isinstance(out, GenerateDecoderOnlyOutput)
    completions = out.sequences[:, inputs["input_ids"].shape[1] :]
    behind = torch.arange(completions.shape[1]) >= custom.batch.lengths[:, None]
    assert (completions[behind] == 7).all()
    assert torch.equal(completions[~behind], custom.batch.tokens[~behind])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "custom_generate: expected greedy decoding or sampling, got beam_search"),
        ({"prompt_lookup_num_tokens": 2}, "expected greedy decoding or sampling, got assisted_generation"),
        ({"repetition_penalty": 1.3}, "logits_processor: .* got RepetitionPenaltyLogitsProcessor"),
        ({"do_sample": True, "typical_p": 0.5}, "logits_processor: .* got TypicalLogitsWarper"),
        ({"max_time": 3.0}, "stopping_criteria: .* got MaxTimeCriteria"),
        (
            {"stopping_criteria": StoppingCriteriaList([MaxTimeCriteria(3.0)])},
            "stopping_criteria: .* got MaxTimeCriteria",
        ),
        ({"return_dict_in_generate": True, "output_scores": True}, "output_scores: expected False"),
        ({"eos_token_id": [2, 9]}, r"eos_token_id: expected ids of the engine's eos_ids \(2,\), got \[9\]"),
        ({"max_length": 90}, "max_length: expected max_new_tokens in its place, got 90"),
        ({"max_new_tokens": 19}, "max_new_tokens: expected at least 21"),
    ],
    ids=str,
)
def test_what_would_have_no_effect_is_refused(engine, inputs, options, message):
    custom = custom_generate(engine, BUDGET)
    with pytest.raises(ValueError, match=message):
        engine.model.generate(**inputs, custom_generate=custom, **options)
    assert custom.batch is None


def test_a_processor_beside_it_is_refused(engine, inputs):
    processor = BudgetLogitsProcessor(engine.model, engine.tokenizer, inputs, BUDGET)
    with pytest.raises(ValueError, match=r"logits_processor: .* got BudgetLogitsProcessor"):
        engine.model.generate(
            **inputs,
            custom_generate=custom_generate(engine, BUDGET),
            logits_processor=LogitsProcessorList([processor]),
        )


def test_another_model_and_a_cache_of_the_callers_are_refused(engine, inputs):
    custom = custom_generate(engine, BUDGET)
    other = tiny.load()[0]
    with pytest.raises(ValueError, match="expected the model of its engine, got another one"):
        other.generate(**inputs, custom_generate=custom)
    cache = DynamicCache(config=engine.model.config)
    engine.model(inputs["input_ids"][:, :3], **{CACHE_ARGUMENT: cache})
    with pytest.raises(ValueError, match="past_key_values: expected none"):
        engine.model.generate(**inputs, custom_generate=custom, **{CACHE_ARGUMENT: cache})
