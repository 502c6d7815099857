"""`BudgetLogitsProcessor` in plain `model.generate`: rows of the own engine, and what is refused."""

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from elastic import Budget, RolloutEngine, Sampling
from elastic.integrations.transformers import BudgetLogitsProcessor, BudgetStoppingCriteria
from elastic.models import tiny
from tests.integrations.transformers.players import assert_written, padded
from tests.rollout.calls import FIELDS, assert_replayed, assert_same

BUDGETS = [Budget(8, 12), Budget(0, 6), Budget(20, 9, closing="{end} answer is")]
SAMPLING = Sampling(1.1, top_k=20, top_p=0.95, seed=4)


@pytest.fixture(scope="module")
def loaded():
    model, tokenizer = tiny.load()
    prompts = [tokenizer.encode(problem.prompt) for problem in tiny.problems(3, 5, "test")]
    assert len({len(prompt) for prompt in prompts}) > 1  # padding
    return model, tokenizer, padded(prompts, tokenizer.pad_token_id), prompts


@pytest.fixture
def make(loaded):
    """A processor of these prompts."""
    model, tokenizer, inputs, _ = loaded

    def processor(budget=BUDGETS, **options) -> BudgetLogitsProcessor:
        return BudgetLogitsProcessor(model, tokenizer, inputs, budget, **{"sampling": SAMPLING, **options})

    return processor


def generate(loaded, processor, **options) -> torch.Tensor:
    model, _, inputs, _ = loaded
    return model.generate(**inputs, **{**processor.arguments(), **options})


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_rows_are_those_of_the_own_engine(loaded, make, samples, options):
    model, tokenizer, inputs, prompts = loaded
    own = RolloutEngine(model, tokenizer).generate(prompts, BUDGETS, samples, SAMPLING)
    processor = make(samples_per_prompt=samples)
    sequences = generate(loaded, processor, **options)
    assert_same(processor.batch, own, FIELDS)
    assert_written(sequences, inputs, processor.batch)
    assert_replayed(processor.batch, [budget for budget in BUDGETS for _ in range(samples)])
    assert own.thinking_cut.any()
    assert len(set(own.lengths.tolist())) > 1


def test_the_generation_config_acts_in_front_of_the_draw_and_forced_tokens_come_through(loaded, make):
    end = loaded[1].convert_tokens_to_ids("</think>")
    processor = make(Budget(80, 5))
    free = generate(loaded, processor)
    assert not processor.batch.thinking_cut.all()
    processor = make(Budget(80, 5))
    sequences = generate(loaded, processor, bad_words_ids=[[end]])
    assert processor.batch.thinking_cut.all()
    assert ((sequences == end).sum(dim=1) == 1).all()
    assert free.shape != sequences.shape or not torch.equal(free, sequences)


def test_the_models_temperature_filters_and_beams_do_nothing_behind_the_draw(loaded, make, monkeypatch):
    expected = generate(loaded, make())
    own = loaded[0].generation_config
    changed = type(own)(temperature=0.1, top_k=1, num_beams=4, max_length=3, do_sample=False)
    monkeypatch.setattr(loaded[0], "generation_config", changed)
    assert torch.equal(generate(loaded, make()), expected)


def test_without_eos_ids_an_eos_is_a_token_like_any_other(loaded, make):
    model, tokenizer, _, prompts = loaded
    processor = make(Budget(5, 20), eos_ids=())
    generate(loaded, processor)
    own = RolloutEngine(model, tokenizer, eos_ids=()).generate(prompts, Budget(5, 20), 1, SAMPLING)
    assert_same(processor.batch, own, FIELDS)
    eos = processor.batch.tokens == tokenizer.eos_token_id
    assert eos[:, :-1].any()
    assert (processor.batch.solution_tokens == 20).all()


def test_rows_without_a_bounded_budget_end_at_max_new_tokens(loaded, make):
    model, tokenizer, _, prompts = loaded
    processor = make(Budget(4, None), max_new_tokens=9)
    generate(loaded, processor)
    own = RolloutEngine(model, tokenizer).generate(prompts, Budget(4, None), 1, SAMPLING, max_new_tokens=9)
    assert_same(processor.batch, own, FIELDS)


def test_a_limit_that_cuts_a_budget_is_refused_and_an_early_end_is_said(loaded, make):
    with pytest.raises(ValueError, match="max_new_tokens: expected at least 21"):
        make(Budget(8, 12), max_new_tokens=20)
    processor = make(Budget(8, 12))
    with pytest.raises(RuntimeError, match="generate has not run, or ended before the budget did"):
        _ = processor.batch
    model, _, inputs, _ = loaded
    model.generate(**inputs, logits_processor=LogitsProcessorList([processor]), max_new_tokens=3)
    with pytest.raises(RuntimeError, match=r"has 3 tokens .* which has max_new_tokens=21"):
        _ = processor.batch


def test_it_serves_one_call(loaded, make):
    processor = make()
    generate(loaded, processor)
    with pytest.raises(ValueError, match="a processor serves one call of generate"):
        generate(loaded, processor)


def test_prompts_must_be_those_it_was_made_for(loaded, make):
    model, _, inputs, _ = loaded
    backwards = {name: tensor.flip(0) for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="expected the prompts that the processor was made for"):
        model.generate(**backwards, **make().arguments())


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3, "do_sample": False}, {"num_beams": 2, "do_sample": True}, {"num_return_sequences": 2}],
    ids=str,
)
def test_beam_search_and_rows_it_does_not_know_are_refused(loaded, make, options):
    with pytest.raises(ValueError, match=r"expected 3 rows .* without beam search"):
        generate(loaded, make(), **options)


@pytest.mark.parametrize("kind", ["assistant", "prompt lookup"])
def test_assisted_decoding_is_refused(loaded, kind):
    model, tokenizer, inputs, _ = loaded
    first = {name: tensor[-1:, -int(inputs["attention_mask"][-1].sum()) :] for name, tensor in inputs.items()}
    processor = BudgetLogitsProcessor(model, tokenizer, first, Budget(8, 12), sampling=SAMPLING)
    assisted = {"assistant_model": tiny.load()[0]} if kind == "assistant" else {"prompt_lookup_num_tokens": 2}
    with pytest.raises(ValueError, match=r"input_ids: .* assisted decoding"):
        model.generate(**first, **processor.arguments(), **assisted)


def test_another_processor_behind_it_is_found_out(loaded, make):
    class Other(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.zeros_like(scores)

    processor = make()
    with pytest.raises(ValueError, match="expected the token drawn; another processor"):
        generate(loaded, processor, logits_processor=LogitsProcessorList([processor, Other()]))


def test_padding_must_stand_on_the_left(loaded):
    model, tokenizer, inputs, _ = loaded
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match='padding on the left; tokenize with padding_side="left"'):
        BudgetLogitsProcessor(model, tokenizer, flipped, Budget(3, 3))
    with pytest.raises(TypeError, match="inputs: expected a mapping with the tensor input_ids, got Tensor"):
        BudgetLogitsProcessor(model, tokenizer, inputs["input_ids"], Budget(3, 3))


def test_the_stopping_criterion_ends_generate_when_all_rows_have_ended(loaded, make):
    processor = make(Budget(2, 2))
    sequences = generate(loaded, processor, max_new_tokens=50)
    assert sequences.shape[1] == loaded[2]["input_ids"].shape[1] + 5
    assert BudgetStoppingCriteria(processor)(sequences, None).all()
