"""Thinking and solution as texts, also where several ends, spellings and character pieces meet."""

from dataclasses import replace

import pytest
import torch

from elastic import FinishReason, Markers, RolloutBatch
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling
from tests.rollout.records import hand_made
from tests.rollout.scripted import THINK, TOOLS, byte_tokenizer
from tests.rollout.small_models import make_tokenizer

TOKENIZER = byte_tokenizer(special=(*THINK, *TOOLS, "[stop]", "<br></think>", "</think>."))
IDS = TOKENIZER.get_added_vocab()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def single(text: str, *, opens: bool) -> NaturalEnd:
    return NaturalEnd((Spelling((IDS[text],)),), text, opens)


def texts(tokens: list[int], phases: str, markers: Markers, reason: str = "STOP") -> tuple[str, str]:
    batch = hand_made(tokens, phases, FinishReason[reason], TOKENIZER, markers)
    return batch.thinking(0), batch.solution(0)


SEVERAL = Markers(
    *((IDS["<think>"],), (IDS["</think>"],), "<think>", "</think>"),
    ends=(single("<tool_call>", opens=True), single("[stop]", opens=False)),
)


@pytest.mark.parametrize(
    ("text", "phases", "thinking", "solution"),
    [
        ("hm<tool_call>x</tool_call><eos>", "ttssss", "hm", "<tool_call>x</tool_call>"),
        ("<tool_call>x<eos>", "sss", "", "<tool_call>x"),
        ("hm[stop]x<eos>", "tttss", "hm", "x"),
        ("hm</think><tool_call>x<eos>", "tttsss", "hm", "<tool_call>x"),
        ("hm[stop]</think>x<eos>", "tttsss", "hm", "</think>x"),
        # forced: what stands behind is the solution's own, an opener too
        ("hm</think><tool_call>x<eos>", "ttcsss", "hm", "<tool_call>x"),
        ("hm</think>x<tool_call>y<eos>", "ttcssss", "hm", "x<tool_call>y"),
        # opened by the row itself, and ended at once
        ("\n<think><tool_call>x<eos>", "oosss", "", "<tool_call>x"),
        ("\n<think></think>x<eos>", "ootss", "", "x"),
        # an opener in an answer without a thought
        ("x<tool_call>y<eos>", "ssss", "", "x<tool_call>y"),
        ("\n<tool_call>y<eos>", "osss", "", "\n<tool_call>y"),
        # a notice or an extension that stands where an early end was replaced
        ("a!b<tool_call>x<eos>", "tntsss"[:6], "a!b", "<tool_call>x"),
    ],
)
def test_an_opening_end_is_the_solutions_and_a_closing_one_nobodys(text, phases, thinking, solution):
    assert texts(ids(text), phases, SEVERAL) == (thinking, solution)


def test_an_opener_of_several_tokens_begins_the_solution_whole():
    """Its tokens before the last one were emitted as thinking."""
    opener = NaturalEnd((Spelling(tuple(ids("CALL:"))),), "CALL:")
    markers = replace(SEVERAL, ends=(opener,))
    assert texts(ids("hmCALL:x"), "tt" + "tttt" + "ss", markers, "LENGTH") == ("hm", "CALL:x")
    assert texts(ids("CALL:x"), "tttt" + "ss", markers, "LENGTH") == ("", "CALL:x")
    # ... and one that never came to its last token is thinking.
    assert texts(ids("hmCALL</think>x"), "tt" + "tttt" + "ts", markers, "LENGTH") == ("hmCALL", "x")
    # Without its text, its ids are read.
    nameless = replace(markers, ends=(NaturalEnd(opener.spellings),))
    assert texts(ids("hmCALL:x"), "tt" + "tttt" + "ss", nameless, "LENGTH") == ("hm", "CALL:x")


def test_a_phrase_before_the_end_marker_is_the_markers_where_it_stands():
    bare = single("</think>", opens=False)
    markers = Markers(
        *((IDS["<think>"],), tuple(ids("Done.</think>")), "<think>", "Done.</think>"), ends=(bare,)
    )
    for text, phases, thinking in (
        ("hmDone.</think>x", "tt" + "ttttt" + "t" + "s", "hm"),
        ("hm</think>x", "tt" + "t" + "s", "hm"),
        ("hmDone</think>x", "tt" + "tttt" + "t" + "s", "hmDone"),
        ("hmDone.</think>x", "tt" + "ccccc" + "c" + "s", "hm"),
        ("hmDo</think>x", "tt" + "ttc" + "s", "hmDo"),  # forced to the end of the bare one
    ):
        assert texts(ids(text), phases, markers, "LENGTH") == (thinking, "x")


def test_spellings_that_share_a_token_with_the_text_around_are_split_inside_it():
    """ "<br></think>" holds text in front of the marker, "</think>." behind it."""
    both = Spelling((IDS["</think>"],), *(frozenset([IDS["<br></think>"], IDS["</think>."]]),) * 2)
    markers = replace(SEVERAL, end_spellings=(both,))
    assert texts([*ids("hm"), IDS["<br></think>"], *ids("x")], "ttts", markers, "LENGTH") == ("hm<br>", "x")
    assert texts([*ids("hm"), IDS["</think>."], *ids("x")], "ttts", markers, "LENGTH") == ("hm", ".x")


def test_a_character_cut_apart_by_the_marker_stays_on_its_side():
    """The first two bytes of a three-byte character, then the forced marker, then text."""
    row = [*ids("hm"), *ids("世")[:2], *ids("</think>so")]
    thinking, solution = texts(row, "ttttcss", SEVERAL, "LENGTH")
    assert (thinking, solution) == ("hm\ufffd", "so")
    whole = [*ids("hm世"), *ids("</think>so世")]
    assert texts(whole, "ttttt" + "c" + "sssss", SEVERAL, "LENGTH") == ("hm世", "so世")


def test_markers_of_every_kind_are_saved_with_a_batch(tmp_path):
    spelling = Spelling(
        (IDS["</think>"],), *(frozenset([IDS["<br></think>"]]), frozenset([IDS["</think>."]]))
    )
    start = Spelling((IDS["<think>"],), text_before=frozenset([3]), first=frozenset([3, 4]))
    markers = replace(SEVERAL, end_spellings=(spelling, Spelling((7, 8))), start_spellings=(start,))
    batch = hand_made(ids("hm<tool_call>x"), "ttss", FinishReason.LENGTH, TOKENIZER, markers)
    batch.save(tmp_path / "rollout")
    loaded = RolloutBatch.load(tmp_path / "rollout", TOKENIZER)
    assert loaded.markers == markers
    assert loaded.solution(0) == "<tool_call>x"


def test_records_say_how_rows_began_and_ended():
    batch = hand_made(ids("hm</think>x"), "ttts", FinishReason.LENGTH, TOKENIZER, SEVERAL)
    batch = replace(batch, initial_thinking=torch.tensor([7]), ended_at=torch.tensor([2]))
    (record,) = batch.to_records()
    assert (record["initial_phase"], record["initial_thinking"], record["ended_at"]) == ("thinking", 7, 2)


@pytest.mark.parametrize(
    ("text", "phases", "reason", "thinking", "solution"),
    [
        ("ab</think>c<eos>", "tttss", "STOP", "ab", "c"),
        ("ab</think>c", "ttts", "SOLUTION_BUDGET", "ab", "c"),
        # the solution repeats the marker: `split("</think>")[1]` would lose the answer
        ("a</think>b</think>c<eos>", "ttssss", "STOP", "a", "b</think>c"),
        ("a</think><think>b</think>c", "ttssss", "SOLUTION_BUDGET", "a", "<think>b</think>c"),
        ("abx\n</think>ok", "tttccss", "SOLUTION_BUDGET", "abx\n", "ok"),
        ("ab?cd</think>e", "ttnttts", "SOLUTION_BUDGET", "ab?cd", "e"),
        ("abc", "ttt", "TOTAL_BUDGET", "abc", ""),
        ("ab<eos>", "ttt", "STOP", "ab", ""),
        ("ab</think>", "ttt", "LENGTH", "ab", ""),
        ("</think><eos>", "ts", "STOP", "", ""),
        ("\n<think>a</think>b", "ootts", "SOLUTION_BUDGET", "a", "b"),
        ("\n abc<eos>", "oossss", "STOP", "", "\n abc"),
        ("abc", "sss", "SOLUTION_BUDGET", "", "abc"),
        ("\n<think>", "oo", "LENGTH", "", ""),
        ("", "", "LENGTH", "", ""),
    ],
)
def test_texts_are_cut_at_the_first_end_marker(tokenizer, text, phases, reason, thinking, solution):
    batch = hand_made(tokenizer.encode(text), phases, FinishReason[reason], tokenizer)
    assert batch.text(0) == text.removesuffix("<eos>")
    assert (batch.thinking(0), batch.solution(0)) == (thinking, solution)


def test_a_token_that_holds_the_marker_and_more_is_split():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["</think>\n\n"])
    merged = len(tokenizer) - 1
    batch = hand_made([6, 7, merged, 8, 9], "tttss", FinishReason.LENGTH, tokenizer)
    assert batch.text(0) == "ab</think>\n\ncd"
    assert (batch.thinking(0), batch.solution(0)) == ("ab", "\n\ncd")
