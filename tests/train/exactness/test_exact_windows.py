"""Rows longer than a model's attention windows: packed where that is proven, padded where it is not."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
)

from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.proof import packs
from tests.train.test_train_proof import (
    COMPLETIONS,
    PROMPT_OF,
    PROMPTS,
    SMALL,
    alone,
    gradients,
    strong,
)


def mistral(window):
    return strong(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=window)))


@pytest.mark.parametrize("window", [1, 3, 4])
def test_rows_longer_than_the_window_have_the_gradient_of_rows_alone(window):
    model = mistral(window)
    packed = pack(PROMPTS, COMPLETIONS, PROMPT_OF)
    expected = alone(model)
    expected_gradients = gradients(model, expected, packed.targets)
    assert packs(model)
    with tree_attention_of(model):
        logits = packed_logits(model, packed)
        actual = gradients(model, logits, packed.targets)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    for name, value in expected_gradients.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item() + 1e-7
        )


def test_a_long_window_is_narrowed_for_the_proof_alone():
    model = mistral(4096)
    assert packs(model)
    assert model.config.sliding_window == 4096


def test_a_layer_that_does_not_pass_its_window_on_is_noticed_before_any_row_is_longer():
    kinds = ["sliding_attention"] * 2
    model = strong(Olmo3ForCausalLM(Olmo3Config(**SMALL, sliding_window=50, layer_types=kinds)))
    model.model.layers[1].self_attn.sliding_window = None
    with pytest.warns(UserWarning, match="logprobs are not those of each row alone.*rows are padded"):
        assert not packs(model)


def windowed_llama(**windows):
    """Declares windows that it does not have."""
    return strong(LlamaForCausalLM(LlamaConfig(**SMALL | {"max_position_embeddings": 2048}, **windows)))


def test_a_window_that_is_not_where_it_could_be_narrowed_is_not_taken_on_trust():
    with pytest.warns(UserWarning, match="its sliding window is not where it could be narrowed"):
        assert not packs(windowed_llama(sliding_window=4096))


def test_another_window_is_tried_up_to_1024_tokens():
    assert packs(windowed_llama(local_attention=30))
    with pytest.warns(
        UserWarning, match="declares attention_chunk_size=1025, beyond which rows are too long"
    ):
        assert not packs(windowed_llama(attention_chunk_size=1025))
