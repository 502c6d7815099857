"""What the budget machine must know of a tokenizer: ids of a text, texts of single tokens.

Any object with the interface of a transformers tokenizer will do: `encode`, `decode`,
`convert_ids_to_tokens`, `all_special_ids`, `unk_token_id` and `len()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

# Decoding a vocabulary takes a good part of a second, and budgets are compiled often.
_TEXTS: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()
_BYTES: WeakKeyDictionary[Any, list[bytes]] = WeakKeyDictionary()
_CODES: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text as it stands: no BOS, no EOS."""
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]


def encode_all(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of many texts, in one call where the tokenizer is a fast one."""
    if not texts or getattr(tokenizer, "backend_tokenizer", None) is None:
        return [encode(tokenizer, text) for text in texts]
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    return found


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
    return _cached(_TEXTS, tokenizer, _texts)


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes that every id of the vocabulary adds to a text, special tokens included. Cached likewise.

    Exact for byte-level vocabularies (GPT-2 and its heirs), for SentencePiece pieces and their byte fallback.
    Elsewhere it is the token itself, which may differ from what decoding adds by white space or a mark.
    """
    return _cached(_BYTES, tokenizer, _bytes)


def character_codes(tokenizer: Any) -> list[int]:
    """What every id of the vocabulary does to the UTF-8 character in progress (R21). Cached likewise.

    Returns:
        One code per token. 0: the text behind it ends with a whole character, or the vocabulary says nothing
        about bytes. 1 to 3: its last character still needs that many bytes. 4 + k: it consists of k = 1 to 3
        bytes that continue a character; more than three count as three.
    """
    return _cached(_CODES, tokenizer, lambda known: [_character_code(b) for b in token_bytes(known)])


def added_tokens(tokenizer: Any) -> dict[int, Any]:
    """Tokens added to the vocabulary, special or not: they never merge with the text around them."""
    return getattr(tokenizer, "added_tokens_decoder", {})


def is_blank(tokenizer: Any, token: int) -> bool:
    """Whether a token is white space and nothing else."""
    texts = token_texts(tokenizer)
    return 0 <= token < len(texts) and texts[token].isspace()


def _cached(
    cache: WeakKeyDictionary[Any, list[T]], tokenizer: Any, make: Callable[[Any], list[T]]
) -> list[T]:
    # Tokens may have been added since.
    if tokenizer not in cache or len(cache[tokenizer]) != len(tokenizer):
        cache[tokenizer] = make(tokenizer)
    return cache[tokenizer]


def _texts(tokenizer: Any) -> list[str]:
    count = len(tokenizer)
    ids = [[i] for i in range(count)]
    backend = getattr(tokenizer, "backend_tokenizer", None)  # one call instead of one per token
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
    return texts


def _bytes(tokenizer: Any) -> list[bytes]:
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    if _is_byte_level(tokenizer):
        result = [_byte_level(piece) for piece in pieces]
    else:
        result = [piece.replace("\u2581", " ").encode(errors="replace") for piece in pieces]
        ids = {piece: i for i, piece in enumerate(pieces)}
        fallback = [ids[name] for byte in range(256) if (name := f"<0x{byte:02X}>") in ids]
        for byte, i in enumerate(fallback if len(fallback) == 256 else ()):
            result[i] = bytes([byte])
    for i, token in added_tokens(tokenizer).items():
        if i < len(result):
            result[i] = str(token).encode(errors="replace")
    return result


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    parts = (backend.decoder, backend.pre_tokenizer, backend.normalizer)
    return any(part is not None and b'"ByteLevel"' in part.__getstate__() for part in parts)


def _gpt2_alphabet() -> dict[int, str]:
    """The byte that each of GPT-2's visible characters stands for.

    Printable Latin-1 stands for itself, the other bytes follow from 256 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(own)]
    return {code: chr(byte) for code, byte in [*zip(own, own, strict=True), *enumerate(others, start=256)]}


_GPT2 = _gpt2_alphabet()


def _byte_level(piece: str) -> bytes:
    translated = piece.translate(_GPT2)
    try:
        return translated.encode("latin-1")
    except UnicodeEncodeError:  # written in no such alphabet
        return piece.encode(errors="replace")


def _character_code(token: bytes) -> int:
    # Behind the lead byte: a character has three bytes more at most.
    tail = next((k for k in range(min(len(token), 4)) if token[-1 - k] & 0xC0 != 0x80), None)
    if tail is None:
        return 4 + min(len(token), 3) if token else 0
    lead = token[-1 - tail]
    length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
    return max(0, length - 1 - tail)
