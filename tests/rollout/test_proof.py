"""What is proven of a model when an engine is built on it: rows in slots get the logits they have alone."""

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, GPTNeoConfig, GPTNeoForCausalLM, Qwen2Config

from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.attention.windows import declared_windows
from tests.rollout.small_models import VOCAB, make_model


def gpt_neo(kinds, *, window=40, context=256):
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=context,
        window_size=window,
        attention_types=[[kinds, 1]],
        eos_token_id=1,
        bos_token_id=1,
    )
    model = GPTNeoForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    return model


def bert(**changes):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        **changes,
    )
    return BertLMHeadModel(config).eval()


def test_a_local_window_that_no_layer_type_declares_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"gpt_neo cannot be decoded in slots: .* declares window_size=40"):
        RolloutEngine(gpt_neo(["global", "local"]), tokenizer)


def test_a_window_that_no_layer_uses_is_no_obstacle(tokenizer):
    engine = RolloutEngine(gpt_neo(["global", "global"]), tokenizer, max_rows=2)
    short, long = [7, 8, 9, 2], [*range(6, 50), *range(6, 50), 2]
    budget, greedy = Budget(12, 6), Sampling(temperature=0)
    together = engine.generate([short, long], budget, sampling=greedy)
    alone = engine.generate([short], budget, sampling=greedy)
    length = int(alone.lengths[0])
    assert length > 6
    assert together.tokens[0, :length].tolist() == alone.tokens[0, :length].tolist()


def test_a_window_too_long_to_be_tried_is_refused_by_its_name(tokenizer):
    with pytest.raises(
        ValueError, match=r"too long to be tried; its configuration declares window_size=1100"
    ):
        RolloutEngine(gpt_neo(["global", "local"], window=1100, context=1280), tokenizer)


def test_a_window_as_long_as_the_context_is_none(tokenizer):
    RolloutEngine(gpt_neo(["global", "local"], window=256, context=256), tokenizer)
    RolloutEngine(gpt_neo(["global", "local"], window=200, context=256), tokenizer, max_length=200)


def test_layer_types_say_what_a_sliding_window_is_for():
    unused = Qwen2Config(sliding_window=64, use_sliding_window=True, max_window_layers=99)
    assert unused.sliding_window == 64
    assert declared_windows(unused) == {}
    assert declared_windows(GPTNeoConfig()) == {"window_size": 256}


def test_a_head_that_sees_both_directions_is_refused_and_the_same_weights_as_a_decoder_are_not(tokenizer):
    with pytest.raises(ValueError, match=r"bert cannot be decoded in slots: .* no causal language model"):
        RolloutEngine(bert(), tokenizer)
    RolloutEngine(bert(is_decoder=True), tokenizer)


def test_attention_that_does_not_heed_what_rows_may_read_is_refused(tokenizer):
    model = make_model()
    for layer in model.model.layers:
        plain = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, plain=plain, attention_mask=None, slot_reads=None, **kwargs: (
            plain(*args, attention_mask=None, **kwargs)
        )
    with pytest.raises(ValueError, match="a short row beside a long one"):
        RolloutEngine(model, tokenizer)


def test_positions_that_count_columns_are_refused(tokenizer):
    model = make_model()
    plain = model.model.rotary_emb.forward

    def columns(x, position_ids):
        return plain(
            x, position_ids if len(position_ids) == 1 else torch.full_like(position_ids, position_ids.max())
        )

    model.model.rotary_emb.forward = columns
    with pytest.raises(ValueError, match="cannot be decoded in slots: the logprobs of a short row"):
        RolloutEngine(model, tokenizer)


def test_a_model_is_proven_once_and_left_as_it_was(tokenizer):
    model = make_model()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.train()
    model.model.layers[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    RolloutEngine(model, tokenizer)
    ran = len(calls)
    assert 0 < ran <= 16
    RolloutEngine(model, tokenizer, max_rows=3)
    assert len(calls) == ran
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()][:1] == modes[:1]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_no_fault(family, dtype, tokenizer):
    RolloutEngine(make_model(family).to(dtype), tokenizer)
