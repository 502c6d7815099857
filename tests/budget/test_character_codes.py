"""What a token says of the character in progress (R21), against the bytes of real text."""

import codecs
from unicodedata import normalize

import pytest

from elastic.budget.token_text import character_codes, token_bytes
from tests.budget.tokenizers import bpe, byte_fallback, byte_level, pieces, words
from tests.budget.vocabularies import REAL, needs_shared, real

TEXT = (
    "plain, é ß ﬁ, 数学の答えは四十二です。龘𠮷🙂👩\u200d👩\u200d👧🏳\ufe0f\u200d🌈 e\u0301 a\u0308\u0323 "
    "ქართული हिन्दी עִבְרִית Ⅷ √2≤π²\n一二三四五六七八九十 ᚠᛇᚻ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ꙮ 🂡 \u200b\ufeff end"
)


def bytes_missing(stream: bytes) -> int:
    """How many bytes the last character of a stream still needs, by trying."""
    for missing, rest in enumerate((b"", b"\x80", b"\x80\x80", b"\x80\x80\x80")):
        for first in (
            rest,
            b"\x90" + rest[1:],
            b"\xa0" + rest[1:],
        ):  # not each byte may follow each lead byte
            decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                decoder.decode(stream + (first if rest else b""))
            except UnicodeDecodeError:
                continue
            if not decoder.getstate()[0]:
                return missing
    raise AssertionError(f"{stream!r} is no beginning of a text")


def check_following_the_codes(tokenizer, text: str) -> int:
    """Follows the codes token by token; returns how often a token ended inside a character."""
    codes, written = character_codes(tokenizer), token_bytes(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream, pending, inside = b"", 0, 0
    for token in ids:
        stream += written[token]
        pending = codes[token] if codes[token] < 4 else max(0, pending - (codes[token] - 4))
        assert pending == bytes_missing(stream), (token, stream[-8:])
        inside += pending > 0
    assert pending == 0
    assert normalize("NFC", text) in normalize("NFC", stream.decode())  # Qwen3 composes
    return inside


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_the_codes_of_real_vocabularies_say_where_the_bytes_are(name):
    assert check_following_the_codes(real(name), TEXT) > 10


def test_a_vocabulary_of_single_bytes_ends_inside_characters_most_often():
    inside = check_following_the_codes(bpe(["x"], merges=0), TEXT)
    assert inside == len(TEXT.encode()) - len(TEXT)


def test_byte_fallback_tokens_have_the_codes_of_their_bytes():
    tokenizer = byte_fallback(["▁", "x", "y", "é"])
    codes = dict(
        zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), character_codes(tokenizer), strict=True)
    )
    expected = {"<0x41>": 0, "<0xC3>": 1, "<0xE4>": 2, "<0xF0>": 3, "<0xA9>": 5, "é": 0, "▁": 0, "x": 0}
    assert {token: codes[token] for token in expected} == expected
    assert check_following_the_codes(tokenizer, "xé y好🙂x") == 2 + 3


def test_merged_tokens_are_coded_by_how_they_end():
    good, smile, accent = "好".encode(), "🙂".encode(), "é".encode()
    expected = {
        b"a" + good[:2]: 1,
        good[1:]: 6,
        good[2:]: 5,
        smile[1:]: 7,
        smile[1:] + smile[2:]: 7,  # more than any character lacks
        good[2:] + b"x": 0,
        good[2:] + accent[:1]: 1,
        smile[:1]: 3,
        b"x" + smile[:2]: 2,
        smile[2:] + smile[:3]: 1,
        good: 0,
    }
    tokenizer = byte_level(list(expected))
    codes = dict(zip(token_bytes(tokenizer), character_codes(tokenizer), strict=True))
    assert {token: codes[token] for token in expected} == expected


@pytest.mark.parametrize(
    "tokenizer", [words(["数学", "x"]), pieces(["▁", "x", "数", "é"])], ids=["words", "pieces"]
)
def test_vocabularies_without_bytes_have_no_codes(tokenizer):
    assert set(character_codes(tokenizer)) == {0}


def test_special_tokens_are_at_whole_characters():
    tokenizer = bpe(["x"], special=["<think>", "◁think▷", "Ġ½"])
    codes = character_codes(tokenizer)
    assert [codes[i] for i in tokenizer.convert_tokens_to_ids(["<|end|>", "<think>", "◁think▷", "Ġ½"])] == [
        0
    ] * 4


def test_tokens_added_later_are_known():
    tokenizer = bpe(["x"])
    before = len(character_codes(tokenizer))
    tokenizer.add_tokens(["<later>"])
    assert len(character_codes(tokenizer)) == before + 1
    assert token_bytes(tokenizer)[-1] == b"<later>"
