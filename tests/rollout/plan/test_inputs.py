"""Bad input: an error that names argument, value and limit, before the model has run at all."""

import random
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from elastic import Budget, Markers, RolloutEngine, Sampling
from elastic.rollout import OutOfContext
from tests.rollout.small_models import VOCAB, make_model, make_tokenizer

CONTEXT = 64


def refuse_to_run(*args, **kwargs):
    raise AssertionError("the model ran before the arguments were checked")


@pytest.fixture(scope="module")
def engine():
    engine = RolloutEngine(make_model(context=CONTEXT), make_tokenizer(), max_rows=4)
    engine.model.forward = refuse_to_run  # the engine itself tries its model out
    return engine


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompts": []}, ValueError, "prompts: expected at least one, got an empty list"),
        ({"prompts": "a<think>"}, TypeError, "prompts: expected a list of texts"),
        ({"prompts": None}, TypeError, "prompts: expected a list of texts"),
        ({"prompts": ["a", ""]}, ValueError, "prompts: prompt 1 is empty"),
        ({"prompts": [[3], []]}, ValueError, "prompts: prompt 1 is empty"),
        ({"prompts": [7]}, TypeError, "prompts: prompt 0: expected a text or token ids, got 7"),
        ({"prompts": [[1.5]]}, TypeError, "prompts: prompt 0: expected integer token ids, got 1.5"),
        (
            {"prompts": [[4], [VOCAB]]},
            ValueError,
            f"prompt 1: expected token ids 0 .. {VOCAB - 1}, got {VOCAB}",
        ),
        ({"prompts": [[-1]]}, ValueError, "prompt 0: expected token ids 0 .. 50, got -1"),
        ({"samples_per_prompt": 0}, ValueError, "samples_per_prompt: expected 1 or more, got 0"),
        ({"samples_per_prompt": 1.5}, TypeError, "samples_per_prompt: expected an integer, got 1.5"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens: expected 1 or more, got 0"),
        ({"sampling": 0.6}, TypeError, "sampling: expected a Sampling or a list of them, got 0.6"),
        ({"budget": 5}, TypeError, "budget: expected a Budget or a list of them, got 5"),
        ({"budget": [Budget(1, 1), 3]}, TypeError, "budget: expected a Budget or a list"),
        ({"budget": [Budget(1, 1)] * 3}, ValueError, "budget: expected 2 .one per prompt., got 3"),
        (
            {"budget": [Budget(1, 1)] * 3, "samples_per_prompt": 4},
            ValueError,
            r"budget: expected 2 \(one per prompt\) or 8 \(one per row\), got 3",
        ),
        ({"seeds": [1]}, ValueError, "seeds: expected 2, one per row, got 1"),
        ({"seeds": [1, -1]}, ValueError, r"seeds: expected integers 0 .. 2\^63-1, got -1"),
        ({"seeds": torch.tensor([1.0, 2.0])}, ValueError, "seeds: expected integers"),
        ({"budget": Budget(5, 5), "max_new_tokens": 10}, ValueError, "max_new_tokens: expected at least 11"),
    ],
)
def test_a_bad_argument_is_refused_by_name(engine, arguments, error, message):
    with pytest.raises(error, match=message):
        engine.generate(**{"prompts": ["a<think>", "b<think>"], "budget": Budget(2, 2)} | arguments)


@pytest.mark.parametrize(
    ("prompt", "budget", "message"),
    [
        (
            [5] * CONTEXT,
            Budget(1, 1),
            "prompt 1: prompt: expected fewer tokens than the model's context of 64, got 64",
        ),
        ([5] * CONTEXT, Budget.unlimited(), "expected fewer tokens than the model's context of 64, got 64"),
        ([2], Budget(65, 1), "thinking: expected at most the model's context of 64, got 65"),
        ([2], Budget(1, 65), "solution: expected at most the model's context of 64, got 65"),
        ([2], Budget.vanilla(65), "total: expected at most the model's context of 64, got 65"),
        ([5] * 40 + [2], Budget(20, 5), "a prompt of 41 tokens and at most 26 .* do not fit"),
        ([5] * 40 + [2], Budget(30, None), "the context's room: expected at least 32, .* got 23"),
    ],
)
def test_prompt_and_budget_beyond_the_context_are_refused_by_name(engine, prompt, budget, message):
    with pytest.raises(OutOfContext, match=message):
        engine.generate([[5, 2], prompt], [Budget(1, 1), budget])


def test_a_limit_that_would_cut_the_closing_text_is_refused(engine):
    """`max_tokens` cutting the forced message: the row would have neither an answer nor an end marker."""
    budget = Budget(10, None, closing="time</think>")
    with pytest.raises(OutOfContext, match=r"max_new_tokens: expected at least 16, .* got 15"):
        engine.generate(["a<think>"], budget, max_new_tokens=15)


def test_a_closing_text_that_does_not_work_is_no_matter_of_the_context(engine):
    with pytest.raises(ValueError, match=r"^closing: expected exactly one end marker '</think>'") as refused:
        engine.generate(["a<think>"], Budget(4, 4, closing="time"))
    assert not isinstance(refused.value, OutOfContext)


def test_prompt_and_budget_that_just_fill_the_context_are_served(tokenizer):
    model = make_model(context=CONTEXT)
    batch = RolloutEngine(model, tokenizer).generate([[5] * 40 + [2]], Budget(20, 2))
    assert int(batch.lengths[0]) <= 23
    longest = RolloutEngine(model, tokenizer).generate([[5] * (CONTEXT - 1)], Budget.unlimited())
    assert longest.lengths.tolist() == [1]


@pytest.mark.parametrize("name", ["max_rows", "refill_rows", "poll_every"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_engine_sizes_are_checked(model, tokenizer, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected an integer from 1, got {value}"):
        RolloutEngine(model, tokenizer, **{name: value})


@pytest.mark.parametrize("value", [1, 257, True, 3.0])
def test_max_length_is_checked_against_the_context(model, tokenizer, value):
    with pytest.raises(ValueError, match="max_length: expected"):
        RolloutEngine(model, tokenizer, max_length=value)


def test_max_length_is_the_context_of_budgets(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_length=20)
    with pytest.raises(OutOfContext, match="context of 20"):
        engine.generate(["abc<think>"], Budget(10, 10))
    assert int(engine.generate(["abc<think>"]).lengths[0]) <= 16


def test_positions_that_depend_on_other_rows_need_a_max_length(tokenizer):
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32, **factors}
    model = make_model("llama", context=64, rope_parameters=rope)
    with pytest.raises(ValueError, match=r"max_length: llama scales positions .* beyond 32 .* got 64"):
        RolloutEngine(model, tokenizer)
    engine = RolloutEngine(model, tokenizer, max_length=32)
    assert len(engine.generate(["ab<think>"], Budget(3, 3), 2)) == 2


def test_a_tokenizer_without_the_markers_is_refused(model):
    plain = Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>")
    with pytest.raises(ValueError, match="<think>"):
        RolloutEngine(model, tokenizer)


def test_a_tokenizer_of_another_model_is_refused(model):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"more{i}" for i in range(10)])
    with pytest.raises(ValueError, match="tokenizer: has 57 tokens, the model only 51 logits"):
        RolloutEngine(model, tokenizer)


def test_ids_outside_the_vocabulary_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match=r"eos_ids: expected ids 0 .. 50, .* got \[51\]"):
        RolloutEngine(model, tokenizer, eos_ids=[1, 51])
    with pytest.raises(ValueError, match=r"markers: expected ids 0 .. 50, .* got \[60\]"):
        RolloutEngine(model, tokenizer, Markers((2,), (60,)))


@pytest.mark.parametrize("given", ["1", True, (i for i in [1]), 1.0, [1.5], [True]])
def test_what_is_no_list_of_eos_ids_is_refused_by_name(model, tokenizer, given):
    with pytest.raises(TypeError, match="eos_ids: expected a token id or a list of them, got"):
        RolloutEngine(model, tokenizer, eos_ids=given)


def test_a_model_and_tokenizer_without_eos_are_served_with_a_warning():
    model, tokenizer = make_model(), make_tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    with pytest.warns(UserWarning, match=r"eos_ids: neither .* give eos_ids, or eos_ids=\(\) if"):
        engine = RolloutEngine(model, tokenizer)
    assert engine.limits.eos_ids == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RolloutEngine(model, tokenizer, eos_ids=())


def test_what_is_no_causal_model_is_refused(tokenizer):
    with pytest.raises(TypeError, match="model: expected a Hugging Face causal language model, got str"):
        RolloutEngine("model", tokenizer)
    config = make_model().config
    other = SimpleNamespace(config=config, forward=lambda input_ids, past_key_values, cache, use_cache: None)
    with pytest.raises(ValueError, match="forward takes no attention_mask, position_ids, logits_to_keep"):
        RolloutEngine(other, tokenizer)


class Adapter(torch.nn.Module):
    """Wraps a model as adapter libraries do: forward takes anything, attributes are the model's."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)

    def get_base_model(self):
        return self.base_model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)


def test_a_model_inside_an_adapter_is_served(model, tokenizer):
    batches = [
        RolloutEngine(m, tokenizer).generate(["a<think>"], Budget(9, 9), sampling=Sampling(seed=0))
        for m in (model, Adapter(model))
    ]
    assert torch.equal(batches[0].tokens, batches[1].tokens)


@pytest.mark.parametrize("sampling", [None, Sampling(), Sampling(temperature=1.0)])
def test_without_a_seed_every_call_draws_its_own_and_records_it(model, tokenizer, sampling):
    engine = RolloutEngine(model, tokenizer)
    torch.manual_seed(0)
    one = engine.generate(["a<think>"], Budget(9, 9), 4, sampling=sampling)
    torch.manual_seed(0)
    other = engine.generate(["a<think>"], Budget(9, 9), 4, sampling=sampling)
    assert one.run_seed != other.run_seed
    assert not set(one.seeds.tolist()) & set(other.seeds.tolist())
    seeded = replace(sampling or Sampling(), seed=one.run_seed)
    again = engine.generate(["a<think>"], Budget(9, 9), 4, sampling=seeded)
    assert torch.equal(again.tokens, one.tokens)
    assert torch.equal(again.seeds, one.seeds)


def test_a_drawn_seed_moves_no_generator(model, tokenizer):
    state, own = torch.get_rng_state(), random.getstate()
    RolloutEngine(model, tokenizer).generate(["a<think>"], Budget(3, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == own


def test_given_seeds_are_the_rows_own_and_no_run_seed_is_recorded(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    for sampling in (Sampling(), Sampling(seed=5)):
        batch = engine.generate(["a<think>"], Budget(3, 3), 2, sampling=sampling, seeds=[11, 4])
        assert batch.seeds.tolist() == [11, 4]
        assert batch.run_seed is None


def test_an_explicit_seed_gives_the_rows_of_always(model, tokenizer):
    """Values of an earlier version: a run that names its seed goes on as it was."""
    batch = RolloutEngine(model, tokenizer).generate(["a<think>"], Budget(3, 3), 3, Sampling(seed=7))
    assert batch.run_seed == 7
    assert batch.seeds.tolist() == [6654738377353848610, 2207009715805324207, 2545488658212934290]
