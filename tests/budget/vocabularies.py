"""Real vocabularies, where the shared data are there."""

import gzip
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

SHARED = Path(__file__).parents[3] / "shared" / "data"
REAL = ("qwen2.5", "qwen3", "gpt_oss", "mistral_nemo")
needs_shared = pytest.mark.skipif(not (SHARED / "tokenizers").is_dir(), reason="../shared is absent")


@cache
def real(name: str) -> PreTrainedTokenizerFast:
    """One of `REAL`."""
    text = gzip.decompress((SHARED / "tokenizers" / f"{name}.json.gz").read_bytes()).decode()
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))
