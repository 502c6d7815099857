"""Steps that are recorded and replayed: what is recorded when, and that replays decode the same.

`recorder.Recorder` stands in for CUDA graphs: what it replays is operations and addresses, not Python.
"""

import functools
import gc
import warnings
import weakref

import pytest
import torch

import elastic.rollout.engine
import elastic.rollout.schedule.needs
import elastic.rollout.step.stepper
import elastic.rollout.step.workspace
from elastic import Budget, Markers, RolloutEngine, Sampling, ops
from elastic.budget.machine import compile_budgets
from elastic.rollout.step import signature
from elastic.rollout.step.poll import Poll
from elastic.rollout.step.workspace import Workspace
from tests.rollout.calls import HOT, PROMPTS, assert_same, mixed_budgets
from tests.rollout.small_models import make_model, steady
from tests.rollout.step.recorder import Recorder

NO_EOS = {"eos_ids": ()}
THOUGHTS = [f"{letter * n}<think>" for n, letter in enumerate("abcdef", 1)]


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(elastic.rollout.engine, "graphs_for", lambda device: recorder)
    return recorder


def uncaptured(model, tokenizer, **options):
    engine = RolloutEngine(model, tokenizer, **options)
    engine._stepper = elastic.rollout.step.stepper.Stepper(model, attention=engine._attention)
    return engine


def sizes(engine):
    """Rows and columns of the recordings there are."""
    return [
        (sum(key[0]), key[1]) for key, replay in engine._stepper._recordings.items() if replay is not None
    ]


@pytest.fixture(scope="module")
def plans(model, tokenizer):
    """Calls and what they give uncaptured."""
    calls = {
        "mixed": ([PROMPTS, mixed_budgets(12), 2, HOT], {"max_new_tokens": 70}),
        "greedy": ([PROMPTS[:3], Budget(9, 6), 4, Sampling(temperature=0, seed=2)], {}),
        "filtered": ([PROMPTS, Budget(8, 5, closing="qq</think>\n"), 1, Sampling(top_k=5, seed=1)], {}),
    }
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    return {name: (a, k, engine.generate(*a, **k)) for name, (a, k) in calls.items()}


@pytest.mark.parametrize("name", ["mixed", "greedy", "filtered"])
@pytest.mark.parametrize(("max_rows", "poll_every", "lagged"), [(64, 1, False), (5, 4, True)])
def test_replayed_steps_emit_the_same(model, tokenizer, recorder, plans, name, max_rows, poll_every, lagged):
    arguments, options, expected = plans[name]
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows, poll_every=poll_every)
    engine._lagged = lagged
    for _ in range(2):
        batch = engine.generate(*arguments, **options)
        assert_same(batch, expected)
        torch.testing.assert_close(batch.logprobs, expected.logprobs, atol=2e-6, rtol=0)
        torch.testing.assert_close(batch.full_logprobs, expected.full_logprobs, atol=2e-6, rtol=0)
    assert recorder.replayed > recorder.warmed + recorder.captured


def test_a_second_call_replays_what_the_first_recorded(tokenizer, recorder):
    engine = RolloutEngine(steady(), tokenizer, max_rows=8, **NO_EOS)
    plain = uncaptured(steady(), tokenizer, max_rows=8, **NO_EOS)
    arguments = (THOUGHTS, [Budget(n, 2) for n in (3, 6, 9, 12, 15, 18)], 1)
    assert_same(engine.generate(*arguments, HOT), plain.generate(*arguments, HOT))
    # Six rows that end one after the other: a bucket for each number of them but five, which six serves.
    assert sizes(engine) == [(n, 256) for n in (6, 4, 3, 2, 1)]
    assert recorder.warmed == recorder.captured == 5  # the first step of each as it is, the second recorded
    assert recorder.replayed == 21 - 5
    other = Sampling(temperature=1.0, seed=4)  # its seeds are in the slots
    assert_same(engine.generate(*arguments, other), plain.generate(*arguments, other))
    assert (recorder.warmed, recorder.captured, recorder.pools) == (5, 5, 1)
    assert recorder.replayed == 21 - 5 + 21


def test_slots_behind_those_in_use_are_done_in_every_step(model, tokenizer, recorder, monkeypatch):
    behind = []

    def look(self, slots, used, *others):
        behind.append(ops.is_done(slots.state[used:]))
        return original(self, slots, used, *others)

    original = Poll.look
    monkeypatch.setattr(Poll, "look", look)
    engine = RolloutEngine(model, tokenizer, max_rows=6, refill_rows=1)
    engine.generate(PROMPTS, [Budget(n, 4) for n in (4, 24, 12, 16, 20, 8)], sampling=HOT)
    assert sum(len(done) for done in behind) > 40
    assert all(done.all() for done in behind)


def test_more_columns_move_the_cache_and_are_recorded_anew(model, tokenizer, monkeypatch, recorder):
    monkeypatch.setattr(elastic.rollout.schedule.needs, "FIRST_COLUMNS", 8)
    monkeypatch.setattr(elastic.rollout.step.workspace, "_COLUMNS_STEP", 4)
    monkeypatch.setattr(elastic.rollout.step.stepper, "_LEAST_COLUMNS", 8)
    arguments = {"sampling": HOT, "max_new_tokens": 50}
    engine = RolloutEngine(model, tokenizer, max_rows=2, **NO_EOS)
    batch = engine.generate(PROMPTS[:2], **arguments)
    moves = recorder.pools - 1
    assert moves == 2  # 16 columns for 7 + 8 tokens; then 34, then all 57
    assert [columns for _, columns in sizes(engine)] == [48, 57]
    monkeypatch.undo()
    expected = uncaptured(model, tokenizer, max_rows=2, **NO_EOS).generate(PROMPTS[:2], **arguments)
    assert_same(batch, expected)
    assert_same(engine.generate(PROMPTS[:2], **arguments), expected)
    assert recorder.pools == moves + 1  # the cache has kept its size


def test_a_smaller_call_uses_the_buffers_and_a_larger_one_replaces_them(tokenizer, recorder):
    engine = RolloutEngine(steady(), tokenizer, max_rows=8, **NO_EOS)
    engine.generate(THOUGHTS[:4], Budget(6, 4), sampling=HOT)
    engine.generate(THOUGHTS[:3], Budget(5, 3), sampling=HOT)
    assert sizes(engine) == [(4, 256), (3, 256)]
    assert recorder.pools == 1
    engine.generate(THOUGHTS, Budget(6, 4), sampling=HOT)
    assert sizes(engine) == [(6, 256)]
    assert recorder.pools == 2


def test_slots_that_are_used_again_are_free():
    machine, index = compile_budgets([Budget(6, 6)], Markers((2,), (3,)), None, (1,), pad_id=0)
    space, cpu = Workspace(), torch.device("cpu")
    slots = space.slots(4, 51, machine, cpu)
    slots.state.copy_(ops.new_state(index.expand(4), machine))
    for tensor in (slots.signal, slots.entry, slots.positions):
        tensor.fill_(3)
    again = space.slots(3, 51, machine, cpu)
    assert again is slots
    assert ops.is_done(again.state).all()
    assert not any(tensor.any() for tensor in (again.signal, again.entry, again.positions))
    assert space.slots(5, 51, machine, cpu) is not slots
    assert space.slots(5, 52, machine, cpu).logits.shape == (5, 52)


def test_budgets_and_sampling_of_a_call_are_its_own(tokenizer, recorder):
    model = steady()
    engine = RolloutEngine(model, tokenizer, max_rows=4, **NO_EOS)
    fresh = uncaptured(model, tokenizer, max_rows=4, **NO_EOS)
    calls = [
        (Budget(6, 4), HOT, 1),
        (Budget(3, 9), HOT, 1),  # tables of the same size lie where the first ones lay
        (Budget(6, 4), Sampling(temperature=0.3, seed=3), 2),
        (Budget(6, 4), HOT, 2),
        (Budget(6, 4), Sampling(temperature=1.0, seed=4), 2),  # a seed is in the slots
    ]
    for budget, sampling, recorded in calls:
        batch = engine.generate(THOUGHTS[:4], budget, sampling=sampling)
        assert_same(batch, fresh.generate(THOUGHTS[:4], budget, sampling=sampling))
        assert len(sizes(engine)) == recorded
    assert recorder.pools == 1


def negated(module, inputs, out):
    return -out


def change(model, how):
    head = model.lm_head
    with torch.no_grad():
        if how == "in place":
            for weight in model.parameters():
                weight.mul_(1.5)
        elif how == "replaced":
            head.weight = torch.nn.Parameter(-head.weight)
        elif how == "hook":
            head.register_forward_hook(negated)
        elif how == "attribute":
            model.model.layers[0].self_attn.scaling *= 20
        elif how == "forward":
            head.forward = lambda x: negated(head, x, type(head).forward(head, x))


@pytest.mark.parametrize("how", ["in place", "replaced", "hook", "attribute", "forward"])
def test_a_changed_model_decodes_as_it_is(tokenizer, recorder, how):
    model, twin = steady(), steady()
    engine = RolloutEngine(model, tokenizer, max_rows=4, **NO_EOS)
    arguments = (THOUGHTS[:4], Budget(6, 4), 1, HOT)
    before = engine.generate(*arguments)
    change(model, how)
    after = engine.generate(*arguments)
    assert not torch.equal(after.tokens, before.tokens)
    assert recorder.captured == recorder.pools == (1 if how == "in place" else 2)
    change(twin, how)
    assert_same(after, uncaptured(twin, tokenizer, max_rows=4, **NO_EOS).generate(*arguments))


def test_the_stand_in_would_find_a_replay_over_weights_that_are_gone(tokenizer, recorder, monkeypatch):
    monkeypatch.setattr(signature, "of_model", lambda model: ())
    model = steady()
    engine = RolloutEngine(model, tokenizer, max_rows=4, **NO_EOS)
    engine.generate(THOUGHTS[:4], Budget(6, 4), 1, HOT)
    change(model, "replaced")
    with pytest.raises(AssertionError, match="memory that was freed"):
        engine.generate(THOUGHTS[:4], Budget(6, 4), 1, HOT)


def test_release_frees_the_buffers_and_the_next_call_makes_them_again(model, tokenizer, recorder):
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    first = engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    kept = [weakref.ref(tensor) for tensor in engine._stepper._space.tensors]
    engine.release()
    gc.collect()
    assert len(kept) > 10
    assert not any(tensor() is not None for tensor in kept)
    assert recorder.pools == 2
    assert_same(engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT), first)


def test_buffers_that_take_much_of_the_device_are_freed_when_the_call_ends(model, tokenizer, recorder):
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    first = engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    recorder.memory_bytes = 8 * engine._stepper._space.bytes
    engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    assert engine._stepper._space.tensors
    recorder.memory_bytes -= 1
    engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    assert engine._stepper._space.tensors == []
    assert recorder.pools == 2
    assert_same(engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT), first)


def test_nothing_is_kept_on_the_cpu(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    assert engine._stepper._space.tensors == []


def test_buffers_that_a_failed_call_leaves_are_not_used_again(tokenizer, recorder):
    model = make_model(seed=5)
    engine = RolloutEngine(model, tokenizer, max_rows=4, **NO_EOS)
    first = engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    weight = model.model.layers[0].self_attn.k_proj.weight
    with torch.no_grad():
        kept = weight.clone()
        weight.fill_(float("nan"))  # also in the keys that the slots hold
        with pytest.raises(RuntimeError, match=r"row \d \(prompt \d\)"):
            engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
        assert engine._stepper._space.tensors == []
        weight.copy_(kept)
    assert_same(engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT), first)


def test_a_call_from_a_callback_leaves_the_call_around_it_alone(model, tokenizer, recorder):
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    expected = engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT)
    inner = []

    def on_token(row, token, phase, source):
        if row == 2 and len(inner) < 2:
            inner.append(engine.generate(PROMPTS[:2], Budget(3, 2), sampling=HOT))

    assert_same(engine.generate(PROMPTS[:4], Budget(6, 4), sampling=HOT, on_token=on_token), expected)
    assert_same(inner[1], inner[0])
    assert_same(inner[0], engine.generate(PROMPTS[:2], Budget(3, 2), sampling=HOT))


def test_a_step_that_cannot_be_recorded_is_said_once_and_goes_on(tokenizer, recorder):
    model = make_model(seed=5)
    arguments = (PROMPTS, mixed_budgets(6), 1, HOT)
    expected = uncaptured(model, tokenizer, max_rows=4).generate(*arguments, max_new_tokens=70)
    original = model.forward

    @functools.wraps(original)
    def forward(input_ids=None, **more):
        assert int(input_ids.max()) >= 0  # asks the device
        return original(input_ids, **more)

    model.forward = forward
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    with pytest.warns(UserWarning, match="not captured in CUDA graphs.*: DataDependentOutputException"):
        batch = engine.generate(*arguments, max_new_tokens=70)
    assert_same(batch, expected)
    assert (recorder.captured, recorder.replayed) == (1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(engine.generate(*arguments, max_new_tokens=70), expected)
    assert engine._stepper._space.tensors == []


def test_a_model_on_several_devices_is_not_recorded(tokenizer, recorder):
    model = make_model(seed=5)
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    model.register_buffer("elsewhere", torch.empty(1, device="meta"))
    with pytest.warns(UserWarning, match="the model lies on cpu, meta, the engine's device is cpu"):
        engine.generate(PROMPTS[:2], Budget(3, 2), sampling=HOT)
    assert recorder.warmed == 0


def assert_as_uncaptured(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=5, compile="off")
    plain = uncaptured(model, tokenizer, max_rows=5)
    arguments = (PROMPTS, mixed_budgets(12), 2, HOT)
    batches = []
    for changed in (False, False, True):
        if changed:
            change(model, "in place")  # as training does: the recordings stay
        batches.append(engine.generate(*arguments, max_new_tokens=70))
        assert_same(batches[-1], plain.generate(*arguments, max_new_tokens=70))
    assert not torch.equal(batches[-1].tokens, batches[0].tokens)
    assert sizes(engine)


def test_captured_steps_emit_the_same_on_a_gpu(cuda, tokenizer):
    assert_as_uncaptured(make_model().to(cuda), tokenizer)


def test_replayed_steps_emit_the_same_with_weights_updated_in_place(tokenizer, recorder):
    assert_as_uncaptured(make_model(), tokenizer)
