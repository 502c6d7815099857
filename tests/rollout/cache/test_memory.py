"""The KV cache's memory: sized from budgets, and clear about what would fit."""

import re

import pytest
import torch

import elastic.rollout.cache.memory
import elastic.rollout.cache.slot_cache
import elastic.rollout.step.stepper
from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.cache.memory import KVMemory, column_bytes
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import NoRoom, SlotCache
from elastic.rollout.schedule.needs import FIRST_COLUMNS, Needs
from elastic.rollout.schedule.pools import Pool
from tests.rollout.small_models import biased, make_model

CPU = torch.device("cpu")
TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, 2 layers, 2 heads of 8, float32: the small model's
PROMPT = [7, 8, 2]


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that are free."""
    left = [1 << 40]
    monkeypatch.setattr(elastic.rollout.cache.memory, "free_bytes", lambda device: left[0])

    def set_free(size):
        left[0] = size

    return set_free


@pytest.fixture
def made(monkeypatch):
    """The caches that are made, as (pools, bytes)."""
    seen = []

    class Noted(SlotCache):
        def __init__(self, like, pools):
            super().__init__(like, pools)
            seen.append((list(pools), self.bytes))

    monkeypatch.setattr(elastic.rollout.step.stepper, "SlotCache", Noted)
    return seen


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, TOKEN), (torch.bfloat16, TOKEN // 2)])
def test_a_token_takes_what_the_model_leaves_of_it(dtype, size):
    assert column_bytes(make_model().to(dtype), CPU) == size


def test_the_bytes_told_are_the_bytes_allocated(model, tokenizer, made, monkeypatch):
    engine = RolloutEngine(model, tokenizer, max_rows=16)
    short, long = Budget(3, 2), Budget(90, 49)  # 6 and 140 tokens with the end marker
    budgets = [short] * 12 + [long] * 4
    prompts = [PROMPT] * 16
    assert engine.kv_bytes(prompts, budgets) == 16 * 143 * TOKEN  # so small a cache is not split
    monkeypatch.setattr(elastic.rollout.cache.memory, "WORTH_BYTES", 1)
    told = engine.kv_bytes(prompts, budgets)
    engine.generate(prompts, budgets)
    assert made == [([Pool(12, 9), Pool(4, 143)], told)]
    assert told == (12 * 9 + 4 * 143) * TOKEN
    assert engine.kv_bytes(prompts, short) == 16 * 9 * TOKEN
    assert engine.kv_bytes(prompts[:2], long, 3) == 6 * 143 * TOKEN
    assert engine.kv_bytes(prompts, max_new_tokens=30) == 16 * 33 * TOKEN


def test_bytes_follow_the_models_dtype(tokenizer):
    model = make_model()
    engine = RolloutEngine(model, tokenizer)
    assert engine.kv_bytes([PROMPT], Budget(3, 2)) == 9 * TOKEN
    model.to(torch.bfloat16)
    assert engine.kv_bytes([PROMPT], Budget(3, 2)) == 9 * TOKEN // 2


@pytest.mark.parametrize("split", [False, True])
def test_a_cache_that_does_not_fit_says_which_max_rows_would(
    model, tokenizer, free, made, split, monkeypatch
):
    if split:
        monkeypatch.setattr(elastic.rollout.cache.memory, "WORTH_BYTES", 1)
    engine = RolloutEngine(model, tokenizer, max_rows=32)
    prompts, budgets = [PROMPT] * 40, [Budget(3, 2)] * 30 + [Budget(90, 49)] * 10
    # A row takes 36,608 bytes, or 2,304 where it has a short slot.
    assert engine.kv_bytes(prompts, budgets) == (22 * 2_304 + 10 * 36_608 if split else 32 * 36_608)
    free(300_000)
    with pytest.raises(MemoryError, match=r"KV cache: .* need .* GiB, .* are free on cpu") as caught:
        engine.generate(prompts, budgets)
    assert made == []
    fitting = int(re.search(r"max_rows=(\d+) would fit", str(caught.value))[1])
    # The long rows have 8/9 of all tokens: 8 of 9 slots are long.
    assert fitting == (9 if split else 8)
    engine.max_rows = fitting
    assert len(engine.generate(prompts, budgets)) == 40
    engine.max_rows = fitting + 1
    with pytest.raises(MemoryError, match=f"max_rows={fitting} would fit"):
        engine.generate(prompts, budgets)


def test_the_message_names_rows_tokens_and_sizes(free):
    needs = Needs.of([4] * 4, [6, 6, 6, 96], [True] * 4)
    memory = KVMemory(2**24, CPU)
    pools = memory.pools(needs, 4)
    assert pools == [Pool(3, 10), Pool(1, 100)]
    free(2 * 2**30)
    with pytest.raises(MemoryError) as caught:
        memory.check(needs, pools)
    assert str(caught.value) == (
        "KV cache: 3 rows of 10 tokens and 1 row of 100 tokens need 2.03 GiB, 2 GiB are free on cpu; "
        "max_rows=3 would fit: lower max_rows, the budgets or max_new_tokens"
    )
    free(2**30)
    with pytest.raises(MemoryError, match=r"; not even max_rows=1 would fit: lower the budgets or max_new"):
        memory.check(needs, pools)
    free(memory.bytes(pools))
    memory.check(needs, pools)


def test_an_error_comes_before_anything_is_computed(model, tokenizer, free, monkeypatch):
    engine = RolloutEngine(model, tokenizer)
    engine.kv_bytes([PROMPT])  # has looked at the model
    free(100)
    monkeypatch.setattr(model, "forward", None)
    with pytest.raises(MemoryError, match="not even max_rows=1 would fit"):
        engine.generate([PROMPT], Budget(3, 2))


def test_a_cache_that_cannot_grow_says_so(tokenizer, free, monkeypatch):
    monkeypatch.setattr(elastic.rollout.schedule.needs, "FIRST_COLUMNS", 10)
    engine = RolloutEngine(biased(0, 1, -100.0), tokenizer, max_rows=4)  # never EOS
    plenty = engine.generate([PROMPT] * 4, max_new_tokens=40, sampling=Sampling(seed=0))
    assert plenty.lengths.tolist() == [40] * 4
    # It begins with 13 columns, 13,312 bytes, and then wants 28, which are 28,672. It can give up what it
    # holds, but for the keys of one layer while they are copied: 9,984 bytes and those that are free.
    free(17_000)
    with pytest.raises(MemoryError) as caught:
        engine.generate([PROMPT] * 4, max_new_tokens=40)
    assert "4 rows of 28 tokens need" in str(caught.value)
    assert "max_rows=3 would fit" in str(caught.value)


class Failing:
    """Lets so many allocations of a cache pass, then none."""

    def __init__(self, allocations, monkeypatch):
        self.left, self.original = allocations, torch.Tensor.new_zeros
        monkeypatch.setattr(torch.Tensor, "new_zeros", lambda *a, **k: self.allocate(*a, **k))

    def allocate(self, tensor, *size, **options):
        if tensor.ndim == 3 and tensor.shape[1] == 0:  # what the cache is shaped after
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return self.original(tensor, *size, **options)


def test_an_allocation_that_fails_is_told_like_memory_that_is_not_there(model, tokenizer, monkeypatch):
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    Failing(2, monkeypatch)  # of four: half of what 8 rows need
    with pytest.raises(MemoryError, match=r"KV cache: 8 rows of 9 tokens need .*; max_rows=4 would fit"):
        engine.generate([PROMPT] * 8, Budget(3, 2))


def test_a_cache_that_failed_holds_no_memory_while_its_error_is_handled(model, monkeypatch):
    with torch.no_grad():
        prefix = prefill(model, [PROMPT], CPU)[0]
    cache = SlotCache(prefix, [Pool(2, 8)])
    Failing(3, monkeypatch)
    with pytest.raises(NoRoom) as caught:
        cache.grow(16)
    assert caught.value.given == (3 * 16 + 8) * 2 * TOKEN // 4  # three stores have grown, one has not
    assert cache.bytes == 0


def test_an_allocation_that_fails_while_growing_is_told_too(tokenizer, monkeypatch):
    monkeypatch.setattr(elastic.rollout.schedule.needs, "FIRST_COLUMNS", 10)
    engine = RolloutEngine(biased(0, 1, -100.0), tokenizer, max_rows=4)
    Failing(4, monkeypatch)
    with pytest.raises(MemoryError, match=r"4 rows of 28 tokens need .*; max_rows=1 would fit"):
        engine.generate([PROMPT] * 4, max_new_tokens=40)


def test_what_is_free_is_asked_of_the_system():
    size = elastic.rollout.cache.memory.free_bytes(CPU)
    assert size is None or size > 2**20
    assert FIRST_COLUMNS == 512  # as `kv_bytes` says
