"""A model whose logits depend on the last token alone, to the bit, however a batch is made up."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.rollout.small_models import TOKENS, VOCAB, make_tokenizer

WIDTH = 64
EOS, END = TOKENS.index("<eos>"), TOKENS.index("</think>")


def bigram_model(context: int = 128) -> Qwen3ForCausalLM:
    """Embeddings are unit vectors, layers add nothing, and the head is a table of bigrams."""
    config = Qwen3Config(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=32,
        vocab_size=VOCAB,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=EOS,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.eye(VOCAB, WIDTH))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        table = torch.randn(WIDTH, VOCAB)
        table[:, len(TOKENS) :] = -9.0  # ids that the tokenizer does not have
        table[:, [EOS, END]] += 0.6
        model.lm_head.weight.copy_(table.T / 4)  # the norm makes a unit vector 8 long
    return model


def save(folder: Path) -> None:
    """Writes model and tokenizer where vLLM loads them."""
    bigram_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
