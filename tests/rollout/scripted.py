"""A byte-level tokenizer, and an engine whose model writes what it is told."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elastic import Budget, RolloutBatch, RolloutEngine, Sampling
from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT

THINK = ("<think>", "</think>")
TOOLS = ("<tool_call>", "</tool_call>")


def byte_tokenizer(special: Sequence[str] = THINK, pieces: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token per byte, EOS and padding, special tokens, and pieces that no text is cut into."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for piece in pieces:
        vocabulary[piece] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


class Scripted(LlamaForCausalLM):
    """Wants the script's token at each position, and EOS behind it.

    Attributes:
        script: position -> id.
    """

    script: dict[int, int]

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        cache: Any = None,  # as transformers 5.24 calls it
        use_cache: Any = None,
        logits_to_keep: int = 0,
        **more: Any,
    ) -> Any:
        out = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{CACHE_ARGUMENT: cache if past_key_values is None else past_key_values},
            **more,
        )
        width = out.logits.shape[1]
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        wanted = torch.zeros_like(out.logits)
        for row, positions in enumerate(position_ids.expand(input_ids.shape)[:, -width:].tolist()):
            for place, position in enumerate(positions):
                wanted[row, place, self.script.get(position + 1, self.config.eos_token_id)] = 60.0
        out.logits = wanted
        return out


def scripted_engine(tokenizer: PreTrainedTokenizerFast, **options: Any) -> RolloutEngine:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Scripted(config).eval()
    model.script = {}
    return RolloutEngine(model, tokenizer, max_rows=1, **options)


def play(
    engine: RolloutEngine, prompt: Any, script: str | Sequence[int], budget: Budget, **options: Any
) -> RolloutBatch:
    """One greedy row. Its model wants `script`, one token per column: forced tokens take its place there.

    Args:
        prompt: a text, or ids.
        script: a text, or ids.
    """
    encode = engine.tokenizer.encode
    ids = encode(prompt, add_special_tokens=False) if isinstance(prompt, str) else prompt
    wanted = encode(script, add_special_tokens=False) if isinstance(script, str) else script
    engine.model.script = {len(ids) + column: token for column, token in enumerate(wanted)}
    return engine.generate([prompt], budget, sampling=Sampling(temperature=0), **options)
