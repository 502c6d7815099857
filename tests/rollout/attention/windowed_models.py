"""Small random models whose attention has windows, caps or sinks, or layers with experts; and a check."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from elastic import Budget, Sampling
from tests.rollout.small_models import VOCAB

WINDOW = 8
PROMPTS = [[7, 8, 9, 2], [*range(6, 20), 2], [30, 2], [*range(40, 46), *range(10, 33), 2]]
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# model type -> what its configuration needs besides
OPTIONS = {
    "mistral": {"sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "query_pre_attn_scalar": 5, "attn_logit_softcapping": 2.0},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": {"sliding_window": WINDOW, **EXPERTS},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
}


def windowed(kind: str, context: int = 256, **changes) -> torch.nn.Module:
    """A model of type `kind`, its weights large enough that attention matters."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        vocab_size=VOCAB,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        **(OPTIONS[kind] | changes),
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
        for layer in model.model.layers:
            if hasattr(layer.self_attn, "sinks"):
                layer.self_attn.sinks.copy_(torch.linspace(-1, 2, 4))
    return model


def decode(engine, rows_a_prompt=2):
    sampling = Sampling(temperature=1.0, seed=4)
    return engine.generate(PROMPTS, Budget.unlimited(), rows_a_prompt, sampling, max_new_tokens=24)


def check_rescored(model, batch):
    """Every sampled token's logprob is that of the row alone, in one plain forward."""
    assert int(batch.lengths.min()) > WINDOW + 4
    for row in range(len(batch)):
        prompt, length = batch.prompt(row), int(batch.lengths[row])
        tokens = batch.tokens[row, :length]
        with torch.no_grad():
            ids = torch.cat([torch.tensor(prompt), tokens])[None]
            logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        scored = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        sampled = batch.sampled[row, :length]
        torch.testing.assert_close(
            batch.full_logprobs[row, :length][sampled], scored[sampled], atol=1e-5, rtol=0
        )
