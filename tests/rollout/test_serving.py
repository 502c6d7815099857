"""A model is lent: one thread at a time, and every part of it comes back as it was."""

import gc
import threading
import weakref

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from elastic import Budget, RolloutEngine, Sampling
from elastic.models.serving import exclusive, serving
from elastic.train.update.attention import TREE_ATTENTION, tree_attention_of
from tests.rollout.small_models import FAMILIES, make_model

BUDGET, SAMPLING = Budget(4, 3), Sampling(temperature=1.0, seed=8)


def modes(model: torch.nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("training", [True, False])
def test_each_module_comes_back_in_its_own_mode(tokenizer, training):
    model = make_model().train(training)
    model.model.layers[1].train(not training)
    model.lm_head.train(not training)
    before = modes(model)
    assert set(before.values()) == {True, False}
    RolloutEngine(model, tokenizer).generate(["a<think>"], BUDGET)
    assert modes(model) == before


def test_modes_and_attention_come_back_after_an_error(tokenizer):
    model = make_model().train()
    model.model.layers[0].eval()
    model.config._attn_implementation = "flash_attention_2"
    before = modes(model)

    def broken(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RolloutEngine(model, tokenizer).generate(["a<think>"], BUDGET, on_token=broken)
    assert modes(model) == before
    assert model.config._attn_implementation == "flash_attention_2"


def test_a_second_thread_waits_for_the_model(tokenizer):
    """Else the first call's end puts the model back into training while the second still decodes."""
    model = make_model().train()
    model.config._attn_implementation = "flash_attention_2"
    alone = RolloutEngine(model, tokenizer).generate(["ab<think>"], BUDGET, sampling=SAMPLING)
    first_is_in, second_is_in = threading.Event(), threading.Event()
    events: list[str] = []
    batches = {}

    def call(name: str) -> None:
        def on_token(*_):
            events.append(name)
            if name == "first":
                first_is_in.set()
                if len(events) == 1:
                    second_is_in.wait(0.5)
            else:
                second_is_in.set()

        if name == "second":
            first_is_in.wait(30)
        engine = RolloutEngine(model, tokenizer)
        batches[name] = engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING, on_token=on_token)

    threads = [threading.Thread(target=call, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert events == sorted(events)  # the second began when the first was done
    assert all(torch.equal(batches[name].tokens, alone.tokens) for name in ("first", "second"))
    assert all(modes(model).values())
    assert model.config._attn_implementation == "flash_attention_2"


def test_a_rollout_waits_while_another_thread_trains_the_model(tokenizer):
    model = make_model("llama")
    expected = RolloutEngine(model, tokenizer).generate(["ab<think>"], BUDGET, sampling=SAMPLING)
    engine, batches = RolloutEngine(model, tokenizer), []

    def call() -> None:
        batches.append(engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING))

    thread = threading.Thread(target=call)
    with tree_attention_of(model):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert model.config._attn_implementation == TREE_ATTENTION
    thread.join(60)
    assert torch.equal(batches[0].tokens, expected.tokens)
    assert model.config._attn_implementation == "sdpa"


def test_the_same_thread_may_decode_again_from_a_callback(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    alone = engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING)
    inner = []

    def on_token(*_):
        if not inner:
            inner.append(engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING))

    outer = engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING, on_token=on_token)
    assert torch.equal(outer.tokens, alone.tokens)
    assert torch.equal(inner[0].tokens, alone.tokens)


def test_the_lock_keeps_no_model_alive():
    model = make_model()
    with exclusive(model):
        pass
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def image_model() -> LlavaForConditionalGeneration:
    """A language model beside an image encoder: two configurations inside a third."""
    text = FAMILIES["llama"][0](
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=51,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
    )
    vision = CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=50)
    return LlavaForConditionalGeneration(config).eval()


@pytest.mark.parametrize(
    ("lend", "own", "meanwhile"),
    [(serving, "flash_attention_2", "sdpa"), (tree_attention_of, "eager", TREE_ATTENTION)],
)
def test_parts_of_a_model_keep_their_own_attention(lend, own, meanwhile):
    model = image_model()
    config = model.config
    config._attn_implementation = "sdpa"
    config.text_config._attn_implementation = own
    config.vision_config._attn_implementation = "eager"
    with lend(model):
        assert config.text_config._attn_implementation == meanwhile
    found = [part._attn_implementation for part in (config, config.text_config, config.vision_config)]
    assert found == ["sdpa", own, "eager"]
