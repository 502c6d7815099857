"""How a vocabulary writes a marker, on small vocabularies of every kind."""

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elastic import Markers
from elastic.budget.pattern import Pattern
from elastic.budget.spelling import Learned, fit, learn
from elastic.budget.token_text import token_texts
from tests.budget.tokenizers import bpe, byte_fallback
from tests.budget.vocabularies import places

PARTS = [
    "<",
    ">",
    "/",
    "</",
    "think",
    "th",
    "ink",
    "|",
    "<|",
    "|>",
    "[",
    "]",
    "x",
    "y",
    "aab",
    "ab",
    "a",
    "b",
]
PARTS += [" ", "\n", "\n\n", ".", "!", "é", "好", "**"]


@given(
    marker=st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join),
    merges=st.sampled_from([0, 5, 20, 60, 150, 400]),
    split=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_a_marker_that_is_accepted_is_found_wherever_it_stands_and_only_there(marker, merges, split, seed):
    assume(not marker.isspace())
    draw = random.Random(seed)

    def text(most: int) -> str:
        return "".join(draw.choices(PARTS, k=draw.randint(0, most)))

    lines = [text(6) + draw.choice([marker, ""]) + text(6) for _ in range(draw.randint(1, 30))]
    tokenizer = bpe(lines * 3, merges=merges, split=split)
    learned = learn(tokenizer, marker, "start")
    pattern = Pattern(learned.needed + learned.further)
    for _ in range(20):
        # Something stands between two markers: where merges never end, rows of them have ever new spellings.
        sample = "".join(draw.choice([marker, ""]) + draw.choice(PARTS) + text(3) for _ in range(3))
        sample = sample + marker if draw.random() < 0.2 else sample
        ids = tokenizer.encode(sample, add_special_tokens=False)
        assert pattern.ends(ids) == places(tokenizer, ids, marker), sample


def test_a_merged_start_is_found_and_text_before_it_is_known():
    # Of the sentence ".<" a start marker takes only "<", so it opens no completion; " <" may.
    tokenizer = bpe(
        [" <think>\n", "x.<think>", "<think>x", " <", ".<", "<th ink"] * 9, merges=14, split=False
    )
    markers = Markers.from_tokenizer(tokenizer)
    texts = token_texts(tokenizer)
    first = {texts[i]: i for s in markers.start_spellings for i in (s.ids[0], *s.first)}
    assert {" <", ".<"} <= {text[: text.index("<") + 1] for text in first}
    before = {texts[i] for s in markers.start_spellings for i in s.text_before}
    assert before
    assert all(text[: text.rindex("<")].strip() for text in before)
    assert all(not text[: text.index("<")].strip() for text in set(first) - before)


def test_a_spelling_takes_the_whole_marker_in_one_token_only_where_it_is_one_token():
    tokenizer = bpe(["x<t>", " <t>", "<t>\n", "<", "t>"] * 20, merges=40, split=False)
    texts = token_texts(tokenizer)
    spellings = Markers.from_tokenizer(tokenizer, "<t>", "</t>").start_spellings
    single = [s for s in spellings if len(s) == 1]
    assert single
    assert all("<t>" in texts[i] for s in single for i in (*s.ids, *s.first, *s.last))
    assert len([s for s in spellings if len(s) > 1]) + 1 == len(spellings)


@pytest.mark.parametrize("before", ["", "x", "x ", "\n", "好", " 🙂"])
@pytest.mark.parametrize("behind", ["", "y", " y", "\n\n", "🙂"])
@pytest.mark.parametrize("marker", ["<think>", "</think>", "◁think▷"])
def test_sentencepiece_with_bytes_for_other_characters_writes_markers_that_are_found(before, behind, marker):
    tokenizer = byte_fallback(
        ["▁", "x", "y", "▁x", "▁<", "<", "</", "▁</", "think", ">", ">\n", "\n", "nk", "thi"]
    )
    markers = Markers.from_tokenizer(tokenizer, marker, "[/t]")
    ids = tokenizer.encode(before + marker + behind, add_special_tokens=False)
    assert len(markers.start_pattern.ends(ids)) == 1
    assert not markers.start_pattern.ends(
        tokenizer.encode(f"{marker[:-1]} {marker[1:]}", add_special_tokens=False)
    )


@pytest.mark.parametrize("merged", [[], ["▁["], ["▁[", "▁[/"]])
def test_the_space_that_sentencepiece_puts_in_front_is_no_part_of_a_marker(merged):
    tokenizer = byte_fallback(["▁", "[", "t", "]", "/", "[/", *merged])
    assert tokenizer.tokenize("[t]")[0].startswith("▁")
    markers = Markers.from_tokenizer(tokenizer, "[t]", "[/t]")
    assert tokenizer.convert_ids_to_tokens(list(markers.start)) == ["[", "t", "]"]
    assert tokenizer.convert_ids_to_tokens(list(markers.end)) == ["[/", "t", "]"]


def spelled(name: str, text: str, *lengths: int, further: tuple[int, ...] = ()) -> Learned:
    from elastic.budget.pattern import Spelling

    made = [Spelling(tuple(range(length))) for length in (*lengths, *further)]
    return Learned(name, text, tuple(made[: len(lengths)]), tuple(made[len(lengths) :]))


def test_spellings_that_do_not_fit_are_dropped_rarest_first():
    chosen = fit(
        [spelled("end", "</t>", 5, 4, further=(7, 6)), spelled("ends", "<c>", 3, further=(2, 2))], 22
    )
    assert [[len(s) for s in spellings] for spellings in chosen] == [[5, 4, 7], [3, 2]]


def test_spellings_of_real_traces_that_do_not_fit_are_refused_naming_texts_tokens_and_limit():
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below, without regex
        fit([spelled("--end-marker", "</t>", 9, 8), spelled("--end", "<c>", 6, further=(2,))], 22)
    assert str(error.value) == (
        "--end-marker, --end: expected at most 22 tokens in all spellings, got 23: "
        "'</t>' 17 in 2 spellings, '<c>' 6 in 1 spellings"
    )


def test_a_marker_of_too_many_tokens_is_refused_naming_it():
    tokenizer = bpe(["x"], merges=0)
    with pytest.raises(
        ValueError, match=r"end: expected at most 24 tokens, '</this is a very long end>' has 26"
    ):
        Markers.from_tokenizer(tokenizer, "<t>", "</this is a very long end>")
