"""A prompt in several forwards leaves what it leaves in one."""

import pytest
import torch

import elastic.rollout.cache.prefill
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.cache.prefill import prefill, prefill_all, trunks
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


def test_models_of_older_transformers_get_one_prompt_at_a_time(monkeypatch):
    class Older(torch.nn.Module):
        """Takes columns of all rows alike, as transformers 5.19 does."""

        def __init__(self, model):
            super().__init__()
            self.inner = model

        def forward(self, ids, *, logits_to_keep, **named):
            out = self.inner(ids, **named)
            out.logits = out.logits[:, logits_to_keep, :]
            return out

    model, ends = make_model(), [[7, 50], [3], [20]]
    with torch.no_grad():
        expected = prefill(model, PROMPTS, CPU, 30, ends)
        monkeypatch.setattr(elastic.rollout.cache.prefill, "EACH_ROWS_LOGITS", False)
        found = prefill(Older(model), PROMPTS, CPU, 30, ends)
    for one, other in zip(found, expected, strict=True):
        assert one.keys[0].shape == other.keys[0].shape
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


def test_a_prompt_belongs_to_the_longest_one_that_it_begins():
    prompts = {4: [1, 2], 7: [1, 2, 3, 9], 2: [1, 2, 4], 9: [1, 2, 3], 1: [5], 3: [1, 2, 3, 9], 0: [1, 20]}
    found = {tuple(trunk.tokens): sorted(trunk.names) for trunk in trunks(prompts)}
    assert found == {(1, 2, 3, 9): [3, 4, 7, 9], (1, 2, 4): [2], (5,): [1], (1, 20): [0]}


@pytest.mark.parametrize("most_tokens", [8192, 30])
def test_beginnings_of_a_prompt_cost_no_tokens_of_their_own(monkeypatch, most_tokens):
    model, long = make_model(), [5 + i % 40 for i in range(50)]
    prompts = {0: long[:7], 1: long, 2: long[:20], 3: long[:49], 4: [9, 8, 7], 5: long}
    with torch.no_grad():
        expected = {name: prefill(model, [prompt], CPU)[0] for name, prompt in prompts.items()}
        monkeypatch.setattr(elastic.rollout.cache.prefill, "PREFILL_TOKENS", most_tokens)
        counted: list[int] = []
        model.model.register_forward_hook(lambda _, args, out: counted.append(out[0].shape[:2].numel()))
        found = prefill_all(model, prompts, CPU)
    assert sum(counted) in (53, 100)  # the long one and the short one, apart or padded to its length
    for name, prefix in expected.items():
        got = found[name]
        for one, other in zip([*got.keys, *got.values], [*prefix.keys, *prefix.values], strict=True):
            torch.testing.assert_close(one, other, atol=2e-6, rtol=0)
        torch.testing.assert_close(got.logits, prefix.logits, atol=5e-6, rtol=0)


def test_forwards_hold_few_logits_where_prompts_share_beginnings(monkeypatch):
    model = make_model()
    monkeypatch.setattr(elastic.rollout.cache.prefill, "PREFILL_LOGITS", 6)
    prompts = [[first, *range(5, 5 + length)] for first in range(1, 6) for length in (3, 5, 8)]
    shapes: list[torch.Size] = []
    model.register_forward_hook(lambda _, args, out: shapes.append(out.logits.shape[:2]))
    with torch.no_grad():
        found = prefill_all(model, dict(enumerate(prompts)), CPU)
    assert shapes == [(2, 3), (2, 3), (1, 3)]
    assert [found[name].keys[0].shape[1] for name in range(15)] == [4, 6, 9] * 5
