"""A prompt in several forwards leaves what it leaves in one."""

import pytest
import torch

import elastic.rollout.cache.prefill
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.cache.prefill import prefill
from tests.rollout.small_models import make_model

CPU = torch.device("cpu")
PROMPTS = [[5 + i % 40 for i in range(length)] for length in (50, 3, 21)]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("most_tokens", [1, 30, 63, 149])
def test_parts_give_keys_values_and_logits_of_one_forward(family, attention, most_tokens):
    model = make_model(family)
    model.config._attn_implementation = attention
    calls: list[dict] = []
    model.model.register_forward_pre_hook(lambda _, args, named: calls.append(named), with_kwargs=True)
    with torch.no_grad():
        expected = prefill(model, PROMPTS, CPU)
        assert len(calls) == 1
        found = prefill(model, PROMPTS, CPU, most_tokens)
    tokens = [named["input_ids"].numel() for named in calls[1:]]
    assert sum(tokens) == 150
    assert max(tokens) <= max(most_tokens, 3)  # a column of the three, at least
    for one, other in zip(found, expected, strict=True):
        for got, wanted in zip([*one.keys, *one.values], [*other.keys, *other.values], strict=True):
            torch.testing.assert_close(got, wanted, atol=2e-6, rtol=0)
        torch.testing.assert_close(one.logits, other.logits, atol=5e-6, rtol=0)


def test_a_prompt_beyond_the_limit_decodes_as_in_one_forward(model, tokenizer, monkeypatch):
    engine, sampling = RolloutEngine(model, tokenizer), Sampling(temperature=1.0, seed=0)
    prompts = [[*prompt, 2] for prompt in PROMPTS]
    expected = engine.generate(prompts, Budget(9, 5), 2, sampling)
    monkeypatch.setattr(elastic.rollout.cache.prefill, "PREFILL_TOKENS", 16)
    calls = []
    hook = model.model.register_forward_hook(lambda module, args, out: calls.append(out[0].shape[:2].numel()))
    batch = engine.generate(prompts, Budget(9, 5), 2, sampling)
    hook.remove()
    assert max(calls) <= 16
    assert torch.equal(batch.tokens, expected.tokens)
    torch.testing.assert_close(batch.logprobs, expected.logprobs, atol=5e-6, rtol=0)
