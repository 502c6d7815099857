"""The slot cache: what a prompt leaves in a slot, and which models it serves."""

import pytest
import torch
from transformers import BartConfig, Llama4TextConfig, MambaConfig
from transformers.models.bart.modeling_bart import BartForCausalLM
from transformers.models.llama4.modeling_llama4 import Llama4ForCausalLM
from transformers.models.mamba.modeling_mamba import MambaForCausalLM

import elastic.rollout.cache.prefill
import elastic.rollout.cache.slot_cache
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import SlotCache
from elastic.rollout.schedule.pools import Pool
from tests.rollout.small_models import VOCAB, make_model

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": VOCAB,
}


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_right_padding_leaves_every_prompt_as_it_is_alone(family):
    model = make_model(family)
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]
    with torch.no_grad():
        together = prefill(model, prompts, CPU)
        for prompt, prefix in zip(prompts, together, strict=True):
            alone = prefill(model, [prompt], CPU)[0]
            assert prefix.keys[0].shape == (2, len(prompt), 8)
            for got, expected in zip(
                [*prefix.keys, *prefix.values], [*alone.keys, *alone.values], strict=True
            ):
                torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
            torch.testing.assert_close(prefix.logits, alone.logits, atol=2e-6, rtol=0)


def test_a_shared_prefix_equals_one_prefill_a_row_bit_for_bit(model):
    """A group of 8 decodes from one prefill: as if every row had run the same prefill on its own."""
    prompt = [5, 6, 7, 8, 9, 2]
    with torch.no_grad():
        shared = SlotCache(prefill(model, [prompt], CPU)[0], [Pool(8, 16)])
        shared.insert(torch.arange(8), prefill(model, [prompt], CPU)[0])
        own = SlotCache(prefill(model, [prompt], CPU)[0], [Pool(8, 16)])
        logits = []
        for slot in range(8):
            prefix = prefill(model, [prompt], CPU)[0]
            own.insert(torch.tensor([slot]), prefix)
            logits.append(prefix.logits)
    assert all(torch.equal(row, logits[0]) for row in logits)
    for one, other in zip(shared.slot_layers, own.slot_layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
        assert one.keys.view(8, 2, 16, 8)[:, :, :6].abs().sum() > 0


def test_a_group_is_prefilled_once_also_when_its_rows_start_at_different_times(model, tokenizer, monkeypatch):
    prefilled = []

    def counted(model, prompts, device, most_tokens, ends):
        prefilled.extend(map(tuple, prompts))
        return prefill(model, prompts, device, most_tokens, ends)

    monkeypatch.setattr(elastic.rollout.cache.prefill, "prefill", counted)
    prompts = ["ab<think>", "cd<think>", "efg<think>"]
    # Longest first takes the long rows of every group, then their short ones.
    budgets = [Budget(n, 2) for _ in prompts for n in (20, 3, 20, 3, 20, 3)]
    batch = RolloutEngine(model, tokenizer, max_rows=4).generate(prompts, budgets, 6)
    assert sorted(prefilled) == sorted(map(tuple, batch.prompts))


def test_prompts_beyond_the_kept_ones_are_prefilled_again_and_change_nothing(model, tokenizer):
    prompts = [f"{a}{b}<think>" for a in "abcd" for b in "xyz"]
    budgets = [Budget(n, 2) for _ in prompts for n in (8, 3)]
    batches = [
        RolloutEngine(model, tokenizer, max_rows=rows).generate(prompts, budgets, 2, Sampling(seed=0))
        for rows in (2, 24)
    ]
    assert torch.equal(batches[0].tokens, batches[1].tokens)


def test_long_prompts_are_prefilled_in_several_forwards(model, tokenizer, monkeypatch):
    prompts = ["ab<think>", "c" * 30 + "<think>", "dd<think>", "e" * 12 + "<think>"]
    engine, sampling = RolloutEngine(model, tokenizer), Sampling(seed=0)
    expected = engine.generate(prompts, Budget(5, 5), sampling=sampling)
    monkeypatch.setattr(elastic.rollout.cache.prefill, "PREFILL_TOKENS", 20)
    assert torch.equal(engine.generate(prompts, Budget(5, 5), sampling=sampling).tokens, expected.tokens)


def chunked():
    return Llama4ForCausalLM(Llama4TextConfig(**SMALL, num_local_experts=2)), "chunked_attention layers"


def recurrent():
    config = MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, vocab_size=VOCAB)
    return MambaForCausalLM(config), "recurrent state"


def encoder_decoder():
    config = BartConfig(
        vocab_size=VOCAB, d_model=16, decoder_layers=1, encoder_layers=1, decoder_attention_heads=2
    )
    config.is_encoder_decoder = True
    model = BartForCausalLM(config)
    model.config.is_encoder_decoder = True
    return model, "encoder-decoder"


@pytest.mark.parametrize("make", [chunked, recurrent, encoder_decoder])
def test_a_model_whose_cache_has_no_slots_is_refused(make, tokenizer):
    model, message = make()
    with pytest.raises(ValueError, match=message):
        RolloutEngine(model, tokenizer)
