"""The texts of tokens: whole characters, together the decoded whole, and nothing of a stop string."""

from codecs import getincrementaldecoder

import pytest

from elastic.budget.token_text import decode, token_bytes
from elastic.rollout.record.row_text import IncrementalDecoder, RowText
from tests.budget.tokenizers import bpe, byte_fallback, byte_level, pieces
from tests.budget.vocabularies import REAL, needs_shared, real

TEXT = "plain é ß 数学の答えは四十二です。𠮷🙂👩\u200d👩\u200d👧 e\u0301 हिन्दी √2≤π²\n一二三 ꙮ end"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def check(tokenizer, text: str, dropped: str = "") -> int:
    """Pieces of a text against its decoding; returns how many tokens left a character open.

    Args:
        dropped: what decoding takes off the beginning.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoder = IncrementalDecoder(lambda tokens: decode(tokenizer, tokens))
    found = [decoder.push(token) for token in ids]
    assert decoder.finish() == ""
    assert not any(REPLACEMENT in piece for piece in found)
    assert "".join(found) == decode(tokenizer, ids)
    # Byte by byte: what is out is what was written, all of it whenever no character is open.
    bytes_of, utf8 = token_bytes(tokenizer), getincrementaldecoder("utf-8")()
    written = out = ""
    for token, piece in zip(ids, found, strict=True):
        written, out = (written + utf8.decode(bytes_of[token])), out + piece
        whole = written.removeprefix(dropped)
        assert whole.startswith(out)
        assert out == whole or utf8.getstate()[0]
    return found.count("")


@pytest.mark.parametrize("merges", [0, 40])
def test_a_byte_level_vocabulary_never_splits_a_character(merges):
    tokenizer = bpe(["the end 数学"] * 3, merges=merges)
    open_tokens = check(tokenizer, TEXT)
    if merges == 0:
        assert open_tokens == len(TEXT.encode()) - len(TEXT)


def test_a_byte_fallback_vocabulary_never_splits_a_character():
    tokenizer = byte_fallback(["▁plain", "▁", "end", "é", "の"])
    assert check(tokenizer, TEXT, " ") > 50


def test_spaces_of_sentencepiece_stay_between_the_pieces():
    assert check(pieces(["▁a", "▁b", "c", "▁"]), "a b c a b", " ") == 0


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_vocabularies_never_split_a_character(name):
    assert check(real(name), TEXT) > 5


def test_a_character_that_is_cut_comes_out_when_the_row_ends():
    tokenizer = byte_level([b"a", b"\xe6", b"\x97", b"b"])
    text = RowText(lambda ids: decode(tokenizer, ids))
    assert [text.push(token, may_stop=True) for token in (0, 1, 2)] == ["a", "", ""]
    assert text.finish() == REPLACEMENT
    text = RowText(lambda ids: decode(tokenizer, ids))
    assert [text.push(token, may_stop=True) for token in (1, 2, 3)] == ["", "", REPLACEMENT + "b"]


def of(tokens: str, *stop: str) -> RowText:
    """A row over the characters of a text, by their place in it."""
    return RowText(lambda ids: "".join(tokens[i] for i in ids), stop)


def pushed(tokens: str, *stop: str) -> tuple[list[str], bool, str]:
    row = of(tokens, *stop)
    found = []
    for token in range(len(tokens)):
        found.append(row.push(token, may_stop=True))
        if row.stopped:
            break
    return found, row.stopped, row.finish()


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_decided():
    assert pushed("xabc", "abc") == (["x", "", "", ""], True, "")
    assert pushed("xabd", "abc") == (["x", "", "", "abd"], False, "")
    assert pushed("aab.", "ab.") == (["", "a", "", ""], True, "")  # begins again inside of it
    assert pushed("xab", "abc") == (["x", "", ""], False, "ab")
    assert pushed("ab", "b", "abc") == (["", "a"], True, "")
    assert pushed("abc", "bc", "abc") == (["", "", ""], True, "")  # of those complete, the first to begin


def test_where_no_stop_string_may_be_none_goes_on():
    row = of("abc", "abc")
    assert [row.push(0, may_stop=True), row.push(1, may_stop=False)] == ["", "ab"]
    assert (row.push(2, may_stop=True), row.stopped) == ("c", False)
