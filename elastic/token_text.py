"""What the budget machine must know of a tokenizer: ids of a text, texts of single tokens.

Any object with the interface of a transformers tokenizer will do: `encode`, `decode`,
`convert_ids_to_tokens`, `all_special_ids`, `unk_token_id` and `len()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

# Decoding a vocabulary takes a good part of a second, and budgets are compiled often.
_TEXTS: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text as it stands: no BOS, no EOS."""
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, special tokens included and nothing tidied up."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def same_text(a: str, b: str) -> bool:
    """Equal but for white space, which word-level and SentencePiece decoders add or drop at the edges."""
    return "".join(a.split()) == "".join(b.split())


def encode_checked(tokenizer: Any, text: str, name: str) -> list[int]:
    """Token ids of a text that read back as that text.

    Raises:
        ValueError: the tokenizer cannot write the text: no ids, the unknown token, or another text read back.
    """
    ids = encode(tokenizer, text)
    check_ids(tokenizer, ids, text, name)
    return ids


def check_ids(tokenizer: Any, ids: Sequence[int], text: str, name: str) -> None:
    """Raises ValueError unless `ids` stand for `text`."""
    if not ids:
        raise ValueError(f"{name}: {text!r} encodes to no token")
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None and unknown in ids:
        raise ValueError(f"{name}: {text!r} encodes to the unknown token; this tokenizer cannot write it")
    back = decode(tokenizer, ids)
    if not same_text(back, text):
        raise ValueError(f"{name}: {text!r} reads back as {back!r} from its ids {list(ids)}")


def token_texts(tokenizer: Any) -> list[str]:
    """The text of every id of the vocabulary, "" for special tokens. Cached for the tokenizer's life."""
    count = len(tokenizer)
    if tokenizer in _TEXTS and len(_TEXTS[tokenizer]) == count:  # tokens may have been added since
        return _TEXTS[tokenizer]
    ids = [[i] for i in range(count)]
    backend = getattr(tokenizer, "backend_tokenizer", None)  # one call instead of one a token
    if backend is not None:
        texts = backend.decode_batch(ids, skip_special_tokens=False)
    else:
        texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    # SentencePiece decoders drop a leading space, which is all there is of a white space token.
    empty = [i for i, text in enumerate(texts) if not text]
    for i, piece in zip(empty, tokenizer.convert_ids_to_tokens(empty), strict=True):
        texts[i] = "" if piece is None else piece.replace("\u2581", " ")
    for i in tokenizer.all_special_ids:
        if i < count:
            texts[i] = ""
    _TEXTS[tokenizer] = texts
    return texts


def is_blank(tokenizer: Any, token: int) -> bool:
    """Whether a token is white space and nothing else."""
    texts = token_texts(tokenizer)
    return 0 <= token < len(texts) and texts[token].isspace()
