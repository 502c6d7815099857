"""The forward of a step through torch.compile: the same tokens, when it is done, and what a failure does."""

import functools

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.step import compiled
from elastic.rollout.step.compiled import PAYS_STEPS, CompiledForward, Shape, expected_steps
from tests.rollout.calls import HOT, PROMPTS, assert_same, mixed_budgets
from tests.rollout.small_models import make_model, steady

TOP, QUARTER = Shape(64, 64, 1024), Shape(16, 64, 1024)


@pytest.fixture
def traced(monkeypatch):
    """Compilations that are as strict as the real ones, and leave out the code generation."""
    monkeypatch.setattr(compiled, "_BACKEND", "aot_eager")


def shapes(engine):
    return [shape.rows for shape in engine._stepper._compiled._made]


def test_compiled_steps_emit_the_same(tokenizer):
    """Once with the compiler that is used, in full: about 15 s."""
    model, greedy = steady("llama"), Sampling(temperature=0, seed=0)
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:1], 1
    engine = RolloutEngine(model, tokenizer, max_rows=2, compile="on", eos_ids=())
    batch = engine.generate(["ab1+2=<think>", "c<think>"], Budget(9, 4), sampling=greedy)
    plain = RolloutEngine(model, tokenizer, max_rows=2, eos_ids=())
    expected = plain.generate(["ab1+2=<think>", "c<think>"], Budget(9, 4), sampling=greedy)
    assert_same(batch, expected)
    torch.testing.assert_close(batch.logprobs, expected.logprobs, atol=2e-6, rtol=0)
    assert shapes(engine) == [2]


def test_every_number_of_rows_has_its_shape_and_none_is_compiled_twice(model, tokenizer, traced, capfd):
    arguments = (PROMPTS, mixed_budgets(6), 1, HOT)
    expected = RolloutEngine(model, tokenizer, max_rows=4).generate(*arguments, max_new_tokens=70)
    engine = RolloutEngine(model, tokenizer, max_rows=4, compile="on")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            assert_same(engine.generate(*arguments, max_new_tokens=70), expected)
    assert shapes(engine) == [4, 1]
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("elastic:")]
    assert said == [f"elastic: compiling the decode step for {n} rows of 256 tokens" for n in (4, 1)]


def test_weights_and_adapters_are_those_of_the_call(tokenizer, traced):
    model = make_model(seed=5)
    arguments = (PROMPTS[:2], Budget(6, 4), 1, HOT)
    engine = RolloutEngine(model, tokenizer, max_rows=2, compile="on", eos_ids=())
    first = engine.generate(*arguments)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    second = engine.generate(*arguments)
    assert not torch.equal(first.tokens, second.tokens)
    assert_same(second, RolloutEngine(model, tokenizer, max_rows=2, eos_ids=()).generate(*arguments))


def test_a_model_that_cannot_be_compiled_is_said_once_and_goes_on(tokenizer, traced, capfd):
    model = make_model(seed=5)
    arguments = (PROMPTS, mixed_budgets(6), 1, HOT)
    expected = RolloutEngine(model, tokenizer, max_rows=4).generate(*arguments, max_new_tokens=70)
    original = model.forward

    @functools.wraps(original)
    def forward(input_ids=None, **more):
        torch._dynamo.graph_break()
        return original(input_ids, **more)

    model.forward = forward
    engine = RolloutEngine(model, tokenizer, max_rows=4, compile="on")
    for _ in range(2):
        assert_same(engine.generate(*arguments, max_new_tokens=70), expected)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("elastic:")]
    assert len(said) == 2
    assert said[1].startswith("elastic: decode steps are not compiled: Unsupported: ")


def test_an_error_of_the_model_itself_is_raised(tokenizer, traced):
    model = make_model(seed=5)
    engine = RolloutEngine(model, tokenizer, max_rows=4, compile="on")
    original = model.forward

    @functools.wraps(original)
    def forward(input_ids=None, **more):
        if input_ids.shape[1] == 1:
            raise RuntimeError("out of something")
        return original(input_ids, **more)

    model.forward = forward
    with pytest.raises(RuntimeError, match="out of something"):
        engine.generate(PROMPTS[:2], Budget(3, 2), sampling=HOT)


def test_auto_compiles_what_pays(monkeypatch):
    auto = CompiledForward("auto")
    auto.begin(PAYS_STEPS - 1)
    assert not auto.due(TOP)
    for _ in range(40):
        auto.took(TOP)
        auto.took(QUARTER)
    assert not auto.due(TOP)  # decided once per call
    auto.begin(PAYS_STEPS - 41)
    assert not auto.due(TOP)
    auto.begin(PAYS_STEPS - 40)
    assert auto.due(TOP)
    assert not auto.due(QUARTER)  # the steps ahead are those with all slots in use
    assert not auto.due(TOP._replace(columns=2048))
    for _ in range(PAYS_STEPS - 40):
        auto.took(QUARTER)
    auto.begin(1)
    assert auto.due(QUARTER)
    assert not CompiledForward("off").due(TOP)
    assert CompiledForward("on").due(QUARTER)


def test_expected_steps_are_those_of_the_longest_row_or_of_all_rows_over_the_slots():
    assert expected_steps([10, 50], slots=2) == 50
    assert expected_steps([10] * 9, slots=2) == 45


def test_a_cpu_compiles_only_when_told_and_other_values_are_refused(model, tokenizer):
    assert RolloutEngine(model, tokenizer)._stepper.plain
    assert RolloutEngine(model, tokenizer, compile="off")._stepper.plain
    assert not RolloutEngine(model, tokenizer, compile="on")._stepper.plain
    with pytest.raises(ValueError, match="compile: expected one of 'auto', 'on', 'off', got True"):
        RolloutEngine(model, tokenizer, compile=True)


def test_long_calls_compile_by_themselves(model, tokenizer, traced, monkeypatch):
    monkeypatch.setattr(compiled, "PAYS_STEPS", 30)
    engine = RolloutEngine(model, tokenizer, max_rows=2, eos_ids=())
    engine._stepper = type(engine._stepper)(model, "auto", attention=engine._attention)  # as on a GPU
    arguments = (PROMPTS[:2], Budget(6, 4), 1, HOT)
    calls = [engine.generate(*arguments) for _ in range(4)]
    assert 2 in shapes(engine)
    expected = RolloutEngine(model, tokenizer, max_rows=2, eos_ids=()).generate(*arguments)
    for batch in calls:
        assert_same(batch, expected)
