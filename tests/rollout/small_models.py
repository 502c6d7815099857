"""Small random models and a tokenizer with thinking markers, made here."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
TOKENS = ["<pad>", "<eos>", "<think>", "</think>", "\n", " ", *"abcdefghijklmnopqrstuvwxyz0123456789+-=.?"]
VOCAB = 51  # odd, and more than the tokenizer has: as real models do


def make_model(family: str = "qwen3", *, seed: int = 0, context: int = 256, **changes):
    """A random model whose next-token distribution is neither flat nor a single token."""
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(seed)
    config = config_class(
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
        **changes,
    )
    model = model_class(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=1.0)
        model.get_output_embeddings().weight.normal_(std=0.3)
    return model


def biased(seed: int, tokens: int | list[int], by: float, **options):
    """A model that likes or avoids some tokens: its output head gets a bias."""
    model = make_model(seed=seed, **options)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.lm_head.out_features))
    with torch.no_grad():
        model.lm_head.bias[tokens] = by
    return model


def steady(family: str = "qwen3", *, seed: int = 5):
    """A model that neither opens nor ends thinking: rows are as long as their budgets and closing."""
    return biased(seed, [2, 3], -100.0, family=family)


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {text: i for i, text in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<think>", "</think>"],
    )
