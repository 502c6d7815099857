"""The attention of a step's rows over their slots: what they get is what the model's plain forward says."""

from copy import deepcopy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from transformers.models.mistral import modeling_mistral

from elastic import Budget, Markers, RolloutEngine, Sampling
from elastic.budget.machine import compile_budgets
from elastic.rollout.attention import flex
from elastic.rollout.attention import slot_attention as attention
from elastic.rollout.attention.slot_attention import SLOT_ATTENTION, SlotAttention, SlotReads, slot_attention
from elastic.rollout.attention.windows import narrowed
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import SlotCache
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step.step import Slots, forward, new_slots
from tests.rollout.attention.oracle import oracle
from tests.rollout.attention.windowed_models import OPTIONS, WINDOW, check_rescored, decode, windowed
from tests.rollout.small_models import VOCAB, make_model

CPU = torch.device("cpu")
UNCOMPILED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


CASES = [
    *((kind, choice) for kind in OPTIONS for choice in ("sdpa", "flash")),
    *((kind, "flex") for kind in ("gemma2", "gpt_oss")),
]


@UNCOMPILED
@pytest.mark.parametrize(("kind", "choice"), CASES)
def test_rows_get_the_logprobs_of_a_plain_forward(kind, choice, tokenizer, stand_in, monkeypatch):
    monkeypatch.setattr(flex, "compiled", lambda *variant: flex_attention)
    model = windowed(kind)
    engine = RolloutEngine(model, tokenizer, max_rows=3, eos_ids=[], attention=choice)
    assert engine.attention == f"{choice} (asked for)"
    check_rescored(model, decode(engine))


@UNCOMPILED
def test_full_attention_is_served_by_every_choice_alike(tokenizer, stand_in, monkeypatch):
    monkeypatch.setattr(flex, "compiled", lambda *variant: flex_attention)
    model = make_model()
    batches = [
        decode(RolloutEngine(model, tokenizer, max_rows=5, eos_ids=[], attention=c))
        for c in ("sdpa", "flash", "flex")
    ]
    check_rescored(model, batches[0])
    assert all(torch.equal(batch.tokens, batches[0].tokens) for batch in batches)


def test_flash_is_given_all_columns_and_the_lengths_of_the_rows(tokenizer, stand_in):
    model = windowed("gemma3_text")
    engine = RolloutEngine(model, tokenizer, attention="flash")
    stand_in.calls.clear()
    engine.generate([[7, 8, 2], [9, 2]], Budget(6, 5), sampling=Sampling(temperature=0))
    capacity = stand_in.calls[0][0][1]
    assert {call[0] for call in stand_in.calls} == {(2, capacity, 2, 8)}
    assert [call[2] for call in stand_in.calls[:4]] == [[4, 3], [4, 3], [5, 4], [5, 4]]
    assert [call[3] for call in stand_in.calls[:2]] == [(WINDOW - 1, 0), (-1, -1)]


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_window_too_long_to_be_tried_is_tried_narrowed(kind, tokenizer):
    model = windowed(kind, context=4096, sliding_window=2000)
    longest = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: longest.append(kwargs.get("input_ids", args[0] if args else None).shape[1]),
        with_kwargs=True,
    )
    RolloutEngine(model, tokenizer)
    hook.remove()
    assert 16 < max(longest) < 64
    assert model.config.sliding_window == 2000
    windows = {getattr(layer.self_attn, "sliding_window", None) for layer in model.model.layers}
    assert windows <= {2000, None}


def test_narrowing_is_undone_after_an_error():
    model = windowed("gemma2")
    own = [model.config, *(layer.self_attn for layer in model.model.layers)]

    def windows():
        return [owner.sliding_window for owner in own]

    def fail():
        assert windows() == [4, 4, None]
        raise KeyError

    with pytest.raises(KeyError), narrowed(model, 4):
        fail()
    assert windows() == [WINDOW, WINDOW, None]


@pytest.mark.parametrize("size", [WINDOW, 2000])
def test_a_window_that_the_layers_do_not_tell_is_refused(size, tokenizer, monkeypatch):
    """Also where it is too long to be tried."""

    def untold(*args, **kwargs):
        return plain(*args, **kwargs | {"sliding_window": None})

    plain = attention.slot_attention
    attention.AttentionInterface.register(SLOT_ATTENTION, untold)
    try:
        with pytest.raises(ValueError, match=rf"a long row .* declares sliding_window={size}"):
            RolloutEngine(windowed("mistral", context=4096, sliding_window=size), tokenizer)
    finally:
        attention.AttentionInterface.register(SLOT_ATTENTION, plain)


def test_a_window_that_cannot_be_narrowed_is_refused_where_it_is_too_long(tokenizer, monkeypatch):
    """Narrowed, nothing changes: so nothing is proven."""
    model = windowed("mistral", context=4096, sliding_window=2000)
    kept, make = deepcopy(model.config), modeling_mistral.create_sliding_window_causal_mask
    monkeypatch.setattr(
        modeling_mistral, "create_sliding_window_causal_mask", lambda config, **given: make(kept, **given)
    )
    with pytest.raises(ValueError, match="is not where it could be narrowed"):
        RolloutEngine(model, tokenizer)


def in_flight(model):
    machine, _ = compile_budgets(
        [Budget(6, 6)], Markers((2,), (3,), "<think>", "</think>"), None, (1,), pad_id=0
    )
    slots = new_slots(3, VOCAB, machine, CPU)
    prefix = prefill(model, [[6, 7, 2]], CPU)[0]
    cache = SlotCache(prefix, [Pool(3, 20)])
    cache.insert(torch.arange(3), prefix)
    slots.positions.copy_(torch.tensor([3, 7, 15]))
    slots.tokens.copy_(torch.tensor([9, 10, 11]))
    return slots, cache


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss"])
@pytest.mark.parametrize("backend", ["sdpa", "flash:fa3_fwd_interface"])
def test_no_step_reads_device_memory_on_the_host(kind, backend, stand_in):
    model = windowed(kind)
    if kind == "gpt_oss":  # how experts are called is the model's own affair
        model.config._experts_implementation = "batched_mm"
    chosen = SlotAttention(backend)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad():
        slots, cache = in_flight(model)
        slots = Slots(**{name: mode.from_tensor(value) for name, value in vars(slots).items()})
        for layer in cache.slot_layers:
            layer.keys, layer.values = map(mode.from_tensor, layer.stores)
        with mode, chosen.stepping(model):
            forward(model, cache, slots, 3, 16, chosen)


def test_a_model_compiles_into_one_graph_around_the_op(stand_in):
    model, chosen = make_model("llama"), SlotAttention("flash:fa3_fwd_interface")
    found = []
    for call in (model, torch.compile(model.forward, fullgraph=True, backend="aot_eager")):
        with torch.no_grad():
            slots, cache = in_flight(model)
            with chosen.stepping(model):
                forward(call, cache, slots, 3, 16, chosen)
            found.append(slots.logits)
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "flash:fa3_fwd_interface"])
@pytest.mark.parametrize("window", [None, 3])
def test_slots_may_lie_in_several_pools(backend, window, stand_in):
    torch.manual_seed(0)
    keys, values = ([torch.randn(n, 2, columns, 8) for n, columns in ((2, 5), (3, 12))] for _ in range(2))
    lengths, query = torch.tensor([5, 2, 12, 1, 7]), torch.randn(5, 4, 1, 8)
    reads = SlotReads(SlotAttention(backend), lengths, 12, torch.float32)
    mask = reads.arguments()["attention_mask"]
    got, _ = slot_attention(
        torch.nn.Module(), query, keys, values, mask, slot_reads=reads, sliding_window=window, softcap=1.5
    )
    expected, _ = oracle(query, keys, values, lengths, 8**-0.5, window or 0, 1.5)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slot_reads": None}, "needs what the rows may read as slot_reads="),
        ({"position_bias": torch.zeros(1)}, "position biases are not supported"),
        ({"attention_mask": torch.zeros(5, 1, 1, 12), "sliding_window": 3}, "has a mask of its own"),
    ],
)
def test_what_the_attention_does_not_know_is_refused(given, message):
    reads = SlotReads(SlotAttention("sdpa"), torch.ones(5, dtype=torch.int64), 12, torch.float32)
    x = torch.zeros(5, 1, 12, 8)
    with pytest.raises(ValueError, match=message):
        slot_attention(torch.nn.Module(), x[:, :, :1], x, x, **({"slot_reads": reads} | given))
