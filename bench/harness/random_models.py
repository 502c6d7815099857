"""Random-weight Qwen3 models, for benches of decoding and training that need no download."""

from typing import Any

import torch
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

# hidden, layers, heads, key-value heads, head dimension, intermediate, vocabulary
SIZES = {
    "micro": (32, 1, 2, 1, 16, 64, 128),  # for trying a bench
    "tiny": (128, 4, 4, 2, 32, 384, 512),
    "wide": (256, 4, 4, 2, 64, 768, 4096),
    "train": (256, 4, 4, 2, 64, 768, 32_768),
    "head": (256, 4, 4, 2, 64, 768, 151_936),
    "small": (512, 8, 8, 2, 64, 1536, 32_768),
    "1.5B": (1536, 28, 12, 2, 128, 8960, 151_936),  # Qwen2.5-1.5B's
}


def build(
    size: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **options: Any
) -> Qwen3ForCausalLM:
    """A model of that size, made where it is used, with the same weights each time.

    Args:
        options: of `Qwen3Config`.
    """
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocab = SIZES[size]
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocab,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **options,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
