"""What is proven of a model before the first rollout: packed, padded, or refused with what was found."""

import warnings

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    CLIPVisionConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from elastic.data import Problem
from elastic.models.head import LinearHead
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train import Trainer
from elastic.train.update.attention import TREE_ATTENTION, tree_attention_of
from elastic.train.update.packing import pack, packed_hidden, packed_logits
from elastic.train.update.proof import packs
from tests.train.tiny_run import build_config, build_model

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
PROMPTS, PROMPT_OF = [[7, 9, 11], [13, 15, 17, 19, 21]], [0, 1, 0]
COMPLETIONS = [torch.tensor(ids) for ids in ([30, 31, 32, 33], [40, 41], [50, 51, 52])]


def strong(model):
    """Weights large enough that what a token attends to shows in its logits."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def gptj():
    """Its own attention function, rotary positions."""
    config = GPTJConfig(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)
    return strong(GPTJForCausalLM(config))


def bloom():
    """Its own attention function; positions are distances between keys (ALiBi), no position ids."""
    return strong(BloomForCausalLM(BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4)))


def capped():
    """Through the interface, with a soft cap that the tree attention cannot apply."""
    config = Gemma2Config(**SMALL, layer_types=["full_attention"] * 2, attn_logit_softcapping=3.0)
    return strong(Gemma2ForCausalLM(config))


def llama(**changes):
    return strong(build_model(vocab_size=61, **changes))


def alone(model):
    parts = []
    for completion, prompt in zip(COMPLETIONS, PROMPT_OF, strict=True):
        ids = torch.tensor([[*PROMPTS[prompt], *completion.tolist()]])
        parts.append(model(input_ids=ids, use_cache=False).logits[0, len(PROMPTS[prompt]) - 1 : -1])
    return torch.cat(parts)


def gradients(model, logits, targets):
    model.zero_grad()
    (
        logits.log_softmax(-1).gather(1, targets[:, None])[:, 0] * torch.linspace(-1, 2, len(targets))
    ).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (gptj, "its attention does not go through transformers' attention interface"),
        (bloom, "its attention does not go through transformers' attention interface"),
        (capped, "softcap"),
    ],
)
def test_a_model_that_cannot_be_packed_is_padded_and_has_the_gradient_of_its_rows_alone(make, reason):
    model = make()
    packed = pack(PROMPTS, COMPLETIONS, PROMPT_OF)
    expected = alone(model)
    expected_gradients = gradients(model, expected, packed.targets)
    with pytest.warns(UserWarning, match=f"{type(model).__name__} .*{reason}.*rows are padded"):
        packs(model)
    with tree_attention_of(model):
        logits = packed_logits(model, packed)
        actual = gradients(model, logits, packed.targets)
        hidden = packed_hidden(model, LinearHead.of(model), packed) if make is not capped else None
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    for name, value in expected_gradients.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item() + 1e-7
        )
    if hidden is not None:
        torch.testing.assert_close(model.get_output_embeddings()(hidden), expected, rtol=0, atol=2e-5)


def test_the_proof_runs_once_a_model_and_warns_once():
    model = gptj()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.warns(UserWarning, match="padded"):
        assert not packs(model)
    ran = len(calls)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not packs(model)
        with tree_attention_of(model):
            pass
    assert len(calls) == ran


def test_one_layer_that_goes_its_own_way_is_noticed():
    model = llama()
    layer = model.model.layers[1].self_attn
    values = []  # a causal mean, which has nothing of tokens behind it and needs no interface

    def forward(hidden_states, *args, **kwargs):
        values.append(1)
        counts = torch.arange(1, hidden_states.shape[1] + 1)[None, :, None]
        return hidden_states.cumsum(1) / counts, None

    layer.forward = forward
    with pytest.warns(UserWarning, match="that of 1 of 2 layers does not go through"):
        assert not packs(model)
    assert values


def test_tokens_that_mix_outside_attention_are_noticed():
    """A shift by one token, as convolutions and RWKV have: right alone, in a packed batch it crosses rows."""
    model = llama()

    def shift(module, inputs, output):
        return output + 0.5 * nn.functional.pad(output, (0, 0, 1, 0))[:, :-1]

    model.model.layers[0].mlp.register_forward_hook(shift)
    with pytest.warns(UserWarning, match="completions of one batch see each other"):
        assert not packs(model)


def test_a_model_that_ignores_positions_is_noticed():
    model = llama()
    plain = model.model.forward
    model.model.forward = lambda *args, position_ids=None, **kwargs: plain(*args, **kwargs)
    with pytest.warns(UserWarning, match="logprobs are not those of each row alone"):
        assert not packs(model)


def test_a_model_that_sees_both_directions_is_refused_and_named():
    model = strong(BertLMHeadModel(BertConfig(**SMALL | {"is_decoder": False})))
    with pytest.raises(
        ValueError, match=r"BertLMHeadModel \(bert\) cannot be trained: .* no causal language"
    ):
        packs(model)


def test_what_neither_forward_gives_is_refused_with_both_reasons():
    model = gptj()
    model.transformer.h[0].mlp.register_forward_hook(lambda module, inputs, output: output + output.mean(0))
    with pytest.raises(ValueError, match=r"rows packed: its attention .*; rows padded: completions of one"):
        packs(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("std", [0.02, 0.3])
def test_sixteen_bits_are_no_fault(dtype, std):
    model = llama(hidden_size=64, num_hidden_layers=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(std / 0.15)
    assert packs(model.to(dtype))


def test_a_model_inside_a_wrapper_is_proven_too():
    class Wrapper(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.base, self.config = model, model.config

        def get_input_embeddings(self):
            return self.base.get_input_embeddings()

        def forward(self, *args, **kwargs):
            return self.base(*args, **kwargs)

    assert packs(Wrapper(llama()))


def test_the_proof_leaves_the_model_as_it_was():
    model = llama().train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    own, state = model.config._attn_implementation, torch.get_rng_state()
    assert packs(model)
    assert [module.training for module in model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config._attn_implementation == own != TREE_ATTENTION


def test_a_multimodal_model_is_proven_by_its_text():
    text = LlamaConfig(**SMALL)
    vision = CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=60)
    model = strong(LlavaForConditionalGeneration(config))
    assert packs(model)
    with tree_attention_of(model):
        logits = packed_logits(model, pack(PROMPTS, COMPLETIONS, PROMPT_OF))
    torch.testing.assert_close(logits, alone(model), rtol=0, atol=2e-5)


def test_rows_without_the_attention_of_packed_ones_are_padded_not_one_sequence():
    model = llama()
    torch.testing.assert_close(
        packed_logits(model, pack(PROMPTS, COMPLETIONS, PROMPT_OF)), alone(model), rtol=0, atol=2e-5
    )


def test_a_trainer_refuses_a_model_before_its_first_rollout(tmp_path):
    config = BertConfig(**SMALL | {"vocab_size": len(IDS), "max_position_embeddings": 1024})
    with pytest.raises(ValueError, match="bert"):
        Trainer(
            build_config(tmp_path),
            strong(BertLMHeadModel(config)),
            build_tokenizer(),
            [Problem(prompt="3 + 4 = ?", answer="7", id=str(i)) for i in range(12)],
            lambda response, answer: 0.0,
        )


def test_a_padded_model_trains(tmp_path):
    config = GPTJConfig(
        vocab_size=len(IDS),
        n_positions=1024,
        n_embd=32,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
        eos_token_id=IDS["<eos>"],
        bos_token_id=IDS["<bos>"],
    )
    model = strong(GPTJForCausalLM(config))
    before = model.transformer.h[0].attn.q_proj.weight.clone()
    problems = [Problem(prompt="3 + 4 = ?", answer="7", id=str(i)) for i in range(12)]
    rewards = iter(range(1000))
    with pytest.warns(UserWarning, match="padded"):
        trainer = Trainer(
            build_config(tmp_path, train={"steps": 1}),
            model,
            build_tokenizer(),
            problems,
            lambda response, answer: float(next(rewards) % 2),
        )
    trainer.train()
    assert not torch.equal(before, model.transformer.h[0].attn.q_proj.weight)
