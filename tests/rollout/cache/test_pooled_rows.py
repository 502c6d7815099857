"""Rows in slots of different lengths: the same tokens as in slots of one."""

import random

import pytest
import torch
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM

import elastic.rollout.cache.memory
import elastic.rollout.schedule.needs
import elastic.rollout.step.stepper
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.attention.slot_attention import MASKED
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import SlotCache
from elastic.rollout.schedule.pools import Pool
from tests.rollout.calls import ANNOTATION, PROMPTS, assert_same
from tests.rollout.small_models import VOCAB, biased, make_model

CPU = torch.device("cpu")
FIELDS = ["tokens", *ANNOTATION]
TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, 2 layers, 2 heads of 8, float32: the small model's
WARM = Sampling(temperature=0.6, seed=3)


def budgets_of(rows, seed):
    rng = random.Random(seed)
    return [Budget(rng.choice([0, 2, 5, 90]), rng.choice([1, 3, 40])) for _ in range(rows)]


@pytest.fixture
def split(monkeypatch):
    """Makes pools of small caches too; returns the caches."""
    monkeypatch.setattr(elastic.rollout.cache.memory, "WORTH_BYTES", 1)
    caches = []

    class Noted(SlotCache):
        def __init__(self, like, pools):
            super().__init__(like, pools)
            self.moves, self.inserts = [], 0
            caches.append(self)

        def insert(self, slots, prefix):
            self.inserts += 1
            super().insert(slots, prefix)

        def move(self, sources, targets, counts):
            self.moves.append(list(counts))
            super().move(sources, targets, counts)

    monkeypatch.setattr(elastic.rollout.step.stepper, "SlotCache", Noted)
    return caches


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize(
    ("max_rows", "options"),
    [(5, {}), (8, {"refill_rows": 1}), (16, {}), (16, {"poll_every": 5}), (48, {})],
)
def test_rows_are_the_same_in_pools(tokenizer, request, family, max_rows, options):
    model, budgets = make_model(family), budgets_of(48, 5)
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows, **options)
    expected = engine.generate(PROMPTS, budgets, 8, WARM)
    caches = request.getfixturevalue("split")
    batch = engine.generate(PROMPTS, budgets, 8, WARM)
    assert len(caches[0].cursor.pools) > 1
    assert max_rows < 16 or caches[0].moves  # compactions
    assert max_rows == 48 or caches[0].inserts > len(PROMPTS)  # refills
    assert_same(batch, expected, FIELDS)
    torch.testing.assert_close(batch.logprobs, expected.logprobs, atol=1e-5, rtol=0)
    assert model.config._attn_implementation == "sdpa"


def test_rows_are_the_same_in_pools_when_looks_lag_behind(model, tokenizer, request):
    budgets = budgets_of(48, 6)
    engine = RolloutEngine(model, tokenizer, max_rows=9, poll_every=4)
    engine._lagged = True
    expected = engine.generate(PROMPTS, budgets, 8, WARM)
    caches = request.getfixturevalue("split")
    assert torch.equal(engine.generate(PROMPTS, budgets, 8, WARM).tokens, expected.tokens)
    assert len(caches[0].cursor.pools) > 1


def test_only_the_pool_of_rows_without_a_budget_grows(tokenizer, request, monkeypatch):
    engine = RolloutEngine(biased(0, 1, -100.0), tokenizer, max_rows=8)  # never EOS
    budgets = [Budget(3, 5)] * 9 + [Budget(None, None)] * 3

    def run():
        return engine.generate(["ab<think>", "c<think>"], budgets * 2, 12, WARM, max_new_tokens=150)

    expected = run()  # in one pool that need not grow
    monkeypatch.setattr(elastic.rollout.schedule.needs, "FIRST_COLUMNS", 40)
    caches = request.getfixturevalue("split")
    batch = run()
    assert torch.equal(batch.tokens, expected.tokens)
    assert batch.lengths[9:12].tolist() == [150] * 3
    (short, long) = caches[0].cursor.pools
    assert (short.columns, long.columns) == (12, 153)
    assert caches[0].bytes == (short.slots * 12 + long.slots * 153) * TOKEN


def test_equal_budgets_are_in_one_pool_under_the_models_own_attention(model, tokenizer, split):
    RolloutEngine(model, tokenizer, max_rows=4).generate(PROMPTS[:2], Budget(90, 20), 4)
    assert [len(cache.cursor.pools) for cache in split] == [1]


def test_a_model_that_keeps_its_own_attention_is_in_one_pool_and_is_told_why(tokenizer, split, monkeypatch):
    model = make_model()
    monkeypatch.setattr("elastic.rollout.engine.candidates", lambda *_: [MASKED])
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    with pytest.warns(UserWarning, match="the KV memory of the longest.*attention interface") as said:
        batches = [engine.generate(PROMPTS, budgets_of(48, 5), 8, WARM) for _ in range(2)]
    assert len(said) == 1
    assert [len(cache.cursor.pools) for cache in split] == [1, 1]
    assert torch.equal(batches[0].tokens, batches[1].tokens)


def test_a_model_that_works_on_its_keys_itself_is_in_one_pool(tokenizer, split):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = DiffLlamaConfig(**sizes, num_key_value_heads=2, vocab_size=VOCAB, eos_token_id=1)
    engine = RolloutEngine(DiffLlamaForCausalLM(config).eval(), tokenizer, max_rows=4)
    with pytest.warns(UserWarning, match="the KV memory of the longest.*attention interface"):
        engine.generate(PROMPTS, [Budget(1, 1)] * 5 + [Budget(20, 9)], sampling=WARM)
    assert [len(cache.cursor.pools) for cache in split] == [1]


def filled(model, pools):
    with torch.no_grad():
        prefixes = prefill(model, [[5, 6, 7], [8, 9]], CPU)
        cache = SlotCache(prefixes[0], pools)
        for slot in range(sum(pool.slots for pool in pools)):
            cache.insert(torch.tensor([slot]), prefixes[slot % 2])
    return cache, prefixes


def test_a_cache_that_grows_keeps_what_every_pool_holds(model):
    cache, prefixes = filled(model, [Pool(2, 4), Pool(2, 9)])
    cache.grow(16)
    cache.cursor.move(torch.tensor([3, 3, 15, 15]), 16)
    empty = torch.zeros(4, 2, 1, 8)
    for keys_or_values in range(2):
        views = cache.slot_layers[1].update(empty, empty)[keys_or_values]
        assert [view.shape[2] for view in views] == [4, 16]
        for slot, view in enumerate((*views[0], *views[1])):
            prefix = prefixes[slot % 2]
            own = (prefix.keys, prefix.values)[keys_or_values][1]
            assert torch.equal(view[:, : own.shape[1]], own)
            assert not view[:, own.shape[1] :].any()


def test_a_token_is_written_into_its_own_slot_of_its_own_pool(model):
    cache, _ = filled(model, [Pool(2, 4), Pool(1, 9)])
    layer, before = cache.slot_layers[1], cache.slot_layers[1].keys.clone()
    cache.cursor.move(torch.tensor([3, 2, 7]), 8)
    new = torch.arange(3 * 2 * 8).view(3, 2, 1, 8) + 100.0
    keys, values = layer.update(new, new)
    assert [k.shape for k in keys] == [(2, 2, 4, 8), (1, 2, 8, 8)]
    for (pool, row, column), token in zip(((0, 0, 3), (0, 1, 2), (1, 0, 7)), new, strict=True):
        for read in (keys, values):
            assert torch.equal(read[pool][row, :, column], token[:, 0])
    assert int((layer.keys != before).any(1).sum()) == 6  # cells: one per row and head


def test_a_row_that_is_done_is_held_back_within_its_own_slot(model):
    cache, _ = filled(model, [Pool(2, 4), Pool(1, 9)])
    write = torch.tensor([30, 2, 30])
    cache.cursor.move(write, 7)
    assert write.tolist() == [3, 2, 6]


def test_a_compaction_moves_keys_within_their_pool_and_numbers_the_rest(model):
    cache, prefixes = filled(model, [Pool(3, 4), Pool(2, 9)])  # prompts 0 1 0 | 1 0
    cache.cursor.move(torch.tensor([3, 3, 3, 3, 3]), 4)
    cache.move([2, 3, 4], [1, 2, 3], [2, 2])  # slot 1 is gone
    cache.cursor.move(torch.tensor([3, 3, 3, 3]), 4)
    empty = torch.zeros(4, 2, 1, 8)
    keys, _ = cache.slot_layers[0].update(empty, empty)
    for view, row, prompt in ((keys[0], 0, 0), (keys[0], 1, 0), (keys[1], 0, 1), (keys[1], 1, 0)):
        own = prefixes[prompt].keys[0]
        assert torch.equal(view[row, :, : own.shape[1]], own)
    cache.move([2, 3], [0, 1], [0, 2])  # the short pool is empty: tensors instead of lists
    cache.cursor.move(torch.tensor([3, 3]), 4)
    keys, _ = cache.slot_layers[0].update(empty[:2], empty[:2])
    assert keys.shape == (2, 2, 4, 8)
    assert torch.equal(keys[1, :, :3], prefixes[0].keys[0])
