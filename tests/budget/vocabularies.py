"""Real vocabularies, where the shared data are there, and where a text stands in token ids."""

import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

SHARED = Path(__file__).parents[3] / "shared" / "data"
REAL = ("qwen2.5", "qwen3", "gpt_oss", "mistral_nemo")
needs_shared = pytest.mark.skipif(not (SHARED / "tokenizers").is_dir(), reason="../shared is absent")


@cache
def real(name: str) -> PreTrainedTokenizerFast:
    """One of `REAL`, all byte-level."""
    text = gzip.decompress((SHARED / "tokenizers" / f"{name}.json.gz").read_bytes()).decode()
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))


@cache
def math_texts() -> list[str]:
    """Problems and solutions of the shared data."""
    found = []
    for path in sorted((SHARED / "math").glob("*.json")):
        for problem in json.loads(path.read_text()):
            found += [value for value in problem.values() if isinstance(value, str) and len(value) > 20]
    return found


@cache
def _written(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    added = {i: token.content.encode() for i, token in tokenizer.added_tokens_decoder.items()}
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [added.get(i) or bytes(byte_of[c] for c in token) for i, token in enumerate(tokens)]


def places(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], marker: str) -> list[int]:
    """The tokens in which a text ends, read from the bytes of a byte-level vocabulary."""
    written = _written(tokenizer)
    stream = b"".join(written[i] for i in ids)
    holder = [place for place, i in enumerate(ids) for _ in written[i]]
    sought, at, found = marker.encode(), -1, []
    while (at := stream.find(sought, at + 1)) >= 0:
        found.append(holder[at + len(sought) - 1])
    return sorted(set(found))
