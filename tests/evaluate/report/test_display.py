"""Thinking, forced text and solution told apart, token by token."""

import io
from collections.abc import Sequence

import pytest

from elastic.budget import Phase, Source
from elastic.evaluate.report.display import Display
from elastic.evaluate.report.segments import Kind, segments
from elastic.rollout.record.row_text import IncrementalDecoder

S, F, P = Source.SAMPLED, Source.FORCED, Source.PAD


def words(ids: Sequence[int]) -> str:
    """A word-level tokenizer: `w1 w2 ...`."""
    return " ".join(f"w{token}" for token in ids)


def utf8(ids: Sequence[int]) -> str:
    """A byte-level tokenizer."""
    return bytes(ids).decode("utf-8", errors="replace")


def show(rows: Sequence[tuple[int, int, int]], *, colour: bool = False) -> str:
    out = io.StringIO()
    display = Display(out, words, colour=colour)
    display.begin("heading")
    for row in rows:
        display.token(*row)
    display.end("summary")
    return out.getvalue()


ROW = [
    (1, S, Phase.THINKING),
    (2, S, Phase.THINKING),
    (3, F, Phase.CLOSING),
    (4, F, Phase.SOLUTION),
    (5, S, Phase.SOLUTION),
    (0, P, Phase.DONE),
]


def test_segments_are_the_runs_of_one_kind_and_pads_are_none_of_them() -> None:
    assert list(segments(*zip(*ROW, strict=True))) == [
        (Kind.THINKING, (1, 2)),
        (Kind.FORCED, (3, 4)),
        (Kind.SOLUTION, (5,)),
    ]


def test_a_natural_end_marker_and_a_sampled_start_marker_belong_to_the_thinking() -> None:
    row = [(9, S, Phase.OPENING), (1, S, Phase.THINKING), (8, S, Phase.THINKING), (5, S, Phase.SOLUTION)]
    assert [segment.tokens for segment in segments(*zip(*row, strict=True))] == [(9, 1, 8), (5,)]


def test_a_notice_parts_the_thinking_in_two() -> None:
    row = [(1, S, Phase.THINKING), (7, F, Phase.NOTICE), (2, S, Phase.THINKING)]
    assert [segment.kind for segment in segments(*zip(*row, strict=True))] == [
        Kind.THINKING,
        Kind.FORCED,
        Kind.THINKING,
    ]


def test_a_row_without_tokens_has_no_segments() -> None:
    assert list(segments([], [], [])) == []


def test_without_a_terminal_every_run_starts_a_line_with_its_label() -> None:
    assert show(ROW) == ("=== heading\n[thinking] w1 w2\n[forced] w3 w4\n[solution] w5\n(summary)\n\n")


def test_on_a_terminal_thinking_is_dim_forced_text_reversed_and_the_solution_plain() -> None:
    text = show(ROW, colour=True)
    assert "\x1b[2mw1 w2" in text
    assert "\x1b[7mw3 w4" in text
    assert "\x1b[0m\nw5" in text
    assert text.index("w5") < text.rindex("\x1b[0m") < text.index("(summary)")


def test_a_token_is_shown_as_soon_as_it_comes() -> None:
    out = io.StringIO()
    display = Display(out, words, colour=False)
    display.begin("heading")
    display.token(1, S, Phase.THINKING)
    assert out.getvalue().endswith("[thinking] w1")
    display.token(5, S, Phase.SOLUTION)
    assert out.getvalue().endswith("[thinking] w1\n[solution] w5")


@pytest.mark.parametrize("text", ["plain", "naïve — ok", "日本語", "a\n b", "🙂🙂"])
def test_pieces_of_a_byte_level_text_add_up_to_the_whole(text: str) -> None:
    decoder = IncrementalDecoder(utf8)
    pieces = [decoder.push(byte) for byte in text.encode()]
    assert "".join(pieces) + decoder.finish() == text
    assert "�" not in "".join(pieces)


def test_bytes_that_never_become_a_character_come_out_at_the_end() -> None:
    decoder = IncrementalDecoder(utf8)
    assert [decoder.push(byte) for byte in b"a\xe6\x97"] == ["a", "", ""]
    assert decoder.finish() == "�"


def test_spaces_between_words_survive_decoding_in_pieces() -> None:
    decoder = IncrementalDecoder(words)
    assert [decoder.push(token) for token in (1, 2, 3)] == ["w1", " w2", " w3"]


THOUGHT = "né😀".encode()


def show_bytes(rows: Sequence[tuple[int, int, int]]) -> list[str]:
    """What is written by each token's time, headings left out."""
    out = io.StringIO()
    display = Display(out, utf8, colour=False)
    display.begin("heading")
    seen = []
    for row in rows:
        before = len(out.getvalue())
        display.token(*row)
        seen.append(out.getvalue()[before:])
    return seen


def test_a_character_is_shown_when_its_last_byte_comes() -> None:
    seen = show_bytes([(byte, S, Phase.THINKING) for byte in THOUGHT])
    assert seen == ["[thinking] n", "", "é", "", "", "", "😀"]


@pytest.mark.parametrize("cut", [2, 4, 5, 6])
def test_a_character_cut_by_forced_text_stays_where_it_was_thought(cut: int) -> None:
    rows = [(byte, S, Phase.THINKING) for byte in THOUGHT[:cut]]
    seen = show_bytes([*rows, (ord("!"), F, Phase.CLOSING), (ord("a"), S, Phase.SOLUTION)])
    thought = THOUGHT[:cut].decode(errors="replace")
    assert "".join(seen) == f"[thinking] {thought}\n[forced] !\n[solution] a"
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(seen[:cut])
