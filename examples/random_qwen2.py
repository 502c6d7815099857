"""Writes a Qwen2 of 52 M random weights, with the embedded model's tokenizer, to the path it is given."""

import sys

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from elastic.models.tiny.vocabulary import IDS, build_tokenizer


def write(path: str) -> None:
    """Writes a Hugging Face directory; the weights are the same each time."""
    config = Qwen2Config(
        vocab_size=len(IDS),
        hidden_size=640,
        intermediate_size=1728,
        num_hidden_layers=12,
        num_attention_heads=10,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
        pad_token_id=IDS["<pad>"],
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    print(f"{path}: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M weights")


if __name__ == "__main__":
    write(sys.argv[1])
