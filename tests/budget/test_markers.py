"""`Markers.from_tokenizer` on small real tokenizers of each kind, and where a completion begins."""

import itertools

import pytest

from elastic import Budget, Markers, Phase
from elastic.budget.pattern import Spelling
from tests.budget.helpers import machine_for, run
from tests.budget.tokenizers import bpe, chat, pieces, word_pieces, words

TRACES = ["a </b> <p>x.</p>\n\n answer.</think>\n\n <think>\nfoo </think>\nbar x</think> y"] * 5


def test_a_special_token_is_one_id_with_no_other_spelling():
    tokenizer = bpe(["hello"], special=["<think>", "</think>"])
    markers = Markers.from_tokenizer(tokenizer)
    assert (len(markers.start), len(markers.end)) == (1, 1)
    assert markers.end_spellings == (Spelling(markers.end),)
    assert tokenizer.decode(markers.end) == "</think>"


def test_an_added_token_that_is_not_special_works_as_well():
    tokenizer = bpe(TRACES)
    assert len(Markers.from_tokenizer(tokenizer).end) > 1
    tokenizer.add_tokens(["<think>", "</think>"])  # as Qwen3 has them; the vocabulary has grown since
    markers = Markers.from_tokenizer(tokenizer)
    assert (len(markers.start), len(markers.end)) == (1, 1)
    assert markers.initial_phase(tokenizer.encode("hello <think>\n")) == Phase.THINKING
    budget = Budget(3, 3, closing="\nTime is up.\n</think>\n\n")
    assert markers.end[0] in machine_for(budget, markers).tables[0].tolist()


def test_a_marker_of_several_tokens_is_recognised_in_every_context():
    tokenizer = bpe(TRACES)
    markers = Markers.from_tokenizer(tokenizer)
    assert len(markers.end) > 1
    for before, behind in itertools.product(
        ["", "x", "foo ", "bar.", "x\n", "\n\n", "</b>", "é"], ["", "\n", "\n\n", " yes", "no", ".", ">"]
    ):
        ids = tokenizer.encode(before + "</think>" + behind, add_special_tokens=False)
        assert len(markers.end_pattern.ends(ids)) == 1, (before, behind)


def test_merging_with_neighbours_is_learned_from_the_vocabulary():
    tokenizer = bpe(TRACES)
    markers = Markers.from_tokenizer(tokenizer)
    first = {tokenizer.decode([i]) for i in markers.end_spellings[0].first}
    assert all(text.endswith("</") and text != "</" for text in first)
    assert ".</" in first or " </" in first


def test_a_marker_that_tokenises_differently_after_a_newline_is_recognised_there():
    tokenizer = bpe(["\n</think>\n\n", "x\n</think>\n\n", "</p>", "<think>"] * 20, merges=12)
    alone = tokenizer.encode("</think>", add_special_tokens=False)
    behind = tokenizer.encode("\n</think>\n", add_special_tokens=False)
    markers = Markers.from_tokenizer(tokenizer)
    assert len(markers.end_pattern.ends(behind)) == 1
    out = run(machine_for(Budget(99, 9), markers, tokenizer, ()), [*behind, *alone])
    assert Phase.SOLUTION in out.phase


def test_a_marker_in_other_pieces_after_a_newline_is_learned():
    # "\n</th" is one token, so the marker's first piece is neither "</" nor anything that ends in it.
    tokenizer = bpe(["\n</th"] * 50 + ["</", "think>"], merges=30, split=False)
    after = tokenizer.encode("\n</think>", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(after)[0] == "Ċ</th"
    markers = Markers.from_tokenizer(tokenizer)
    assert len(markers.end_spellings) > 1
    assert markers.end_pattern.ends(after) == [len(after) - 1]
    assert markers.end_pattern.ends(markers.end) == [len(markers.end) - 1]


def test_a_marker_that_is_not_recognised_in_a_context_is_refused_naming_text_and_context():
    tokenizer = word_pieces(["x", "<think>", "##<th", "##ink>", "</think>"])
    refusal = (
        r"start: '<think>' is \[3\] alone, but 'x<think>' encodes to \[2, 4, 5\].*own markers with Markers"
    )
    with pytest.raises(ValueError, match=refusal):
        Markers.from_tokenizer(tokenizer)


def test_sentencepiece_prefix_spaces_do_not_hide_a_marker():
    vocabulary = ["▁", "x", "y", ".", "\n", "<", "</", "▁</", "▁<", "think", ">", "▁x"]
    tokenizer = pieces(vocabulary)
    markers = Markers.from_tokenizer(tokenizer)
    for context in ("x</think>y", "x </think>", "x\n</think>\n\nx", "</think>"):
        ids = tokenizer.encode(context, add_special_tokens=False)
        assert len(markers.end_pattern.ends(ids)) == 1, context


def test_word_tokenizers_work_with_markers_as_words():
    tokenizer = words(["1", "2", "<think>", "</think>"])
    markers = Markers.from_tokenizer(tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(markers.start + markers.end)) == ["<think>", "</think>"]


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        ("<think>", "</think>", "start: '<think>' encodes to the unknown token"),
        ("1", "</think>", "end: '</think>' encodes to the unknown token"),
        ("", "2", "start: expected a marker's text, got ''"),
        ("1", " \n", "end: expected a marker's text"),
        ("1", "1", "got '1' twice"),
        ("<|end|>", "2", "start: '<|end|>' holds the EOS token"),
    ],
)
def test_a_tokenizer_without_the_markers_is_refused_naming_the_text(start, end, why):
    tokenizer = words(["1", "2", "3"])
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below, without regex
        Markers.from_tokenizer(tokenizer, start, end)
    assert why in str(error.value)


def test_a_marker_that_does_not_read_back_is_refused():
    tokenizer = bpe(["hello"], special=["<think>", "</think>"])
    tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Replace("[", "(")
    with pytest.raises(ValueError, match=r"start: '\[t\]' reads back as '\(t\]'"):
        Markers.from_tokenizer(tokenizer, "[t]", "[/t]")


@pytest.mark.parametrize(
    ("start", "end"), [((4, 5), (3, 4, 5)), ((1, 2, 3), (2,)), ((7,), (7,)), ((1, 2), (1, 2, 1, 2))]
)
def test_markers_that_contain_each_other_are_refused(start, end):
    with pytest.raises(ValueError, match="could not be told apart"):
        Markers(start, end)


@pytest.mark.parametrize(("start", "end"), [((), (3,)), ((3,), ()), ((-1,), (3,)), (tuple(range(25)), (99,))])
def test_marker_ids_out_of_range_are_refused(start, end):
    with pytest.raises(ValueError, match="expected 1 to 24 token ids"):
        Markers(start, end)


PROMPTS = [
    ("<think>", Phase.THINKING),
    ("<think>\n", Phase.THINKING),
    ("<think>\n\n", Phase.THINKING),
    ("<think>\n\n</think>\n\n", Phase.SOLUTION),  # a template's closed, empty block
    ("<think>\nso</think>", Phase.SOLUTION),
    ("<think>\nso", Phase.OPENING),
    ("", Phase.OPENING),
    ("\n", Phase.OPENING),
]


@pytest.mark.parametrize(("turn", "phase"), PROMPTS)
@pytest.mark.parametrize("pieces_of", [["<think>", "</think>"], []], ids=["special", "several"])
@pytest.mark.parametrize("user", ["hello", "<think>", "what is </think>?", "<think>\n"])
def test_only_the_end_of_the_prompt_says_where_a_completion_begins(turn, phase, pieces_of, user):
    tokenizer = bpe([*TRACES, "hello"], special=[*pieces_of, "<|user|>", "<|assistant|>"])
    markers = Markers.from_tokenizer(tokenizer)
    assert markers.initial_phase(tokenizer.encode(chat(user, turn))) == phase


def test_an_empty_prompt_begins_in_opening():
    assert Markers((2,), (3,)).initial_phase([]) == Phase.OPENING


def test_markers_with_equal_ids_are_equal_whatever_tokenizer_they_came_from():
    a, b = (Markers.from_tokenizer(words(["<think>", "</think>"])) for _ in range(2))
    assert a == b
    assert a != Markers((2,), (3,))
