"""Which markers and ends are taken, what is said of likely-wrong ones, and of prompts inside a thought."""

import warnings

import pytest

from elastic import Markers, Phase
from elastic.budget.marker_text import bare_end, closes, thinking_tokens
from elastic.budget.markers import MarkerWarning, NaturalEnd
from elastic.budget.pattern import Spelling
from tests.budget.tokenizers import bpe, words

TURNS = ["<|user|>", "<|assistant|>"]
CLI = ("--start-marker", "--end-marker", "--end")


def tokenizer(*special: str):
    return bpe(["hello"], special=[*TURNS, *special])


def shown(markers: Markers) -> list[tuple[str, bool]]:
    return [(end.text, end.opens) for end in markers.ends]


@pytest.mark.parametrize(
    "tag",
    [
        "</think>",
        "[/THINK]",
        "<|end_of_thought|>",
        "<|END_THINKING|>",
        "<|/think|>",
        "</seed:think>",
        " </t>\n",
    ],
)
def test_closing_tags_close(tag):
    assert closes(tag)


@pytest.mark.parametrize(
    "text", ["<tool_call>", "[TOOL_CALLS]", "<|tool_call|>", "Answer:", "so</think>", "<answer>"]
)
def test_other_texts_open_something(text):
    assert not closes(text)


@pytest.mark.parametrize(
    ("end", "bare"),
    [
        ("</think>", None),
        ("\n</think>\n\n", "</think>"),
        ("Time is up.\n</think>", "</think>"),
        ("[/THINK] ", "[/THINK]"),
        ("<|end_of_thought|>\n<|begin_of_solution|>", "<|end_of_thought|>"),
        ("Final answer:", None),
        ("</a></b>", None),
    ],
)
def test_the_bare_end_is_the_closing_tag_inside_a_longer_text(end, bare):
    assert bare_end(end) == bare


def test_a_bare_end_is_added_where_the_end_marker_is_more_than_a_tag():
    known = tokenizer("<think>", "</think>")
    markers = Markers.from_tokenizer(known, end="Time is up.\n</think>\n\n")
    assert shown(markers) == [("</think>", False)]
    assert markers.ends[0].spellings == (Spelling(tuple(known.convert_tokens_to_ids(["</think>"]))),)
    assert known.decode(markers.end) == markers.end_text
    # What is forced is not in `ends`; both are natural ends.
    for text in ("hm</think>", "hm Time is up.\n</think>\n\n"):
        ids = known.encode(text, add_special_tokens=False)
        assert len(markers.ends_pattern.ends(ids)) >= 1, text


def test_spellings_of_a_long_end_give_way_where_the_bare_end_is_found_anyway():
    known = bpe(
        [" E"] * 50 + ["En"] * 20, merges=4, split=False
    )  # "Enough" is "En", "ough", behind a space " E", "n"
    with pytest.raises(
        ValueError, match=r"end: expected at most 28 tokens in all spellings, got 35: 'Enough of this"
    ):
        Markers.from_tokenizer(known, "<t>", "Enough of this now")
    markers = Markers.from_tokenizer(known, "<t>", "Enough of it</t>")
    for text in ("Enough of it</t>", "x Enough of it</t>", "x</t>"):
        ids = known.encode(text, add_special_tokens=False)
        assert markers.ends_pattern.ends(ids) == [len(ids) - 1], text


def test_a_bare_end_that_is_given_as_well_is_one_end():
    markers = Markers.from_tokenizer(
        tokenizer("<think>", "</think>", "<tool_call>"), end="\n</think>", ends=["<tool_call>", "</think>"]
    )
    assert shown(markers) == [("</think>", False), ("<tool_call>", True)]


def test_no_bare_end_is_added_where_the_end_marker_is_the_tag():
    assert Markers.from_tokenizer(tokenizer("<think>", "</think>")).ends == ()


def test_texts_and_natural_ends_can_be_given_in_any_order():
    known = tokenizer("<think>", "</think>", "<tool_call>", "</thought>")
    call = NaturalEnd((Spelling((7,)), Spelling((8, 9))), "call", opens=False)
    markers = Markers.from_tokenizer(known, ends=["<tool_call>", call, "</thought>", "Answer:"])
    assert shown(markers) == [
        ("<tool_call>", True),
        ("call", False),
        ("</thought>", False),
        ("Answer:", True),
    ]
    assert markers.ends[1] == call
    assert markers.ends_pattern.ends(known.encode("hm<tool_call>", add_special_tokens=False)) == [2]


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        (["</think>"], "ends: '</think>' is an end already"),
        (["<tool_call>", "<tool_call>"], "ends: '<tool_call>' is an end already"),
        ("<tool_call>", "ends: expected a sequence of texts, got '<tool_call>'; give ['<tool_call>']"),
        ([" "], "ends: expected a marker's text, got ' '"),
        (["<|end|>"], "ends: '<|end|>' holds the EOS token"),
        (["x<think>"], "could not be told apart"),
        (["hello" * 5 + "!" * 20], "ends: expected at most 24 tokens, 'hello"),
        (
            ["#" * 15, "%" * 14],
            "end, ends: expected at most 28 tokens in all spellings, got 30: '</think>' 1 in 1",
        ),
        ([()], "ends: expected 1 to 24 token ids, got []"),
    ],
)
def test_ends_that_the_machine_could_not_honour_are_refused_naming_the_text(ends, why):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below, without regex
        Markers.from_tokenizer(tokenizer("<think>", "</think>", "<tool_call>"), ends=ends)
    assert why in str(error.value)


def test_errors_name_the_flags_or_keys_of_the_place_where_the_markers_were_given():
    known = words(["1", "</think>"])
    with pytest.raises(
        ValueError, match=r"^--start-marker: '<think>' .* with --start-marker and --end-marker$"
    ):
        Markers.from_tokenizer(known, names=CLI)
    with pytest.raises(ValueError, match=r"^--end: '<call>' encodes to the unknown token"):
        Markers.from_tokenizer(known, "1", ends=["<call>"], names=CLI)
    with pytest.raises(ValueError, match=r"^start: .* with Markers\.from_tokenizer\(tokenizer, start=\.\.\."):
        Markers.from_tokenizer(known)


@pytest.mark.parametrize(
    ("start", "end", "ends", "flag"),
    [
        ("<think>so", "so", (), "--start-marker"),
        ("<think>", "<think>so", (), "--end-marker"),
        ("<think>", "</think>", ("<think>so",), "--end"),
    ],
)
def test_the_marker_that_holds_another_is_called_by_its_own_flag(start, end, ends, flag):
    with pytest.raises(ValueError, match=rf"^{flag}: the ids .* told apart; .* with --start-marker and"):
        Markers.from_tokenizer(tokenizer("<think>", "</think>"), start, end, ends, names=CLI)


@pytest.mark.parametrize(
    "special",
    [
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<thinking>", "</thinking>"),
        ("<reasoning>", "</reasoning>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("◁think▷", "◁/think▷"),
        ("<|channel|>",),
    ],
)
def test_markers_in_pieces_beside_special_thinking_tokens_are_warned_of_once(special):
    known = tokenizer("<tool_call>", *special, "<no_think>")
    with pytest.warns(MarkerWarning) as told:
        Markers.from_tokenizer(known)
    assert [warning.filename for warning in told] == [__file__]
    message = str(told[0].message)
    assert message.startswith("start and end: '<think>' and '</think>' are ordinary text")
    assert f"special tokens {', '.join(special)};" in message
    assert "Markers.from_tokenizer(tokenizer, start=..., end=...)" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Markers.from_tokenizer(known)


def test_the_warning_names_the_flags_of_the_place():
    with pytest.warns(
        MarkerWarning, match=r"^--end-marker: '</think>' is .* with --start-marker and --end-marker$"
    ):
        Markers.from_tokenizer(tokenizer("[THINK]", "[/THINK]"), "[THINK]", names=CLI)


@pytest.mark.parametrize(
    ("special", "start", "end"),
    [
        (("<think>", "</think>"), "<think>", "</think>"),
        (("<think>", "</think>"), "<think>\n", "Time is up.\n</think>"),  # they hold the special tokens
        (("<tool_call>", "<no_think>", "<|fim_middle|>"), "<think>", "</think>"),
        (("[THINK]", "[/THINK]", "<think>", "</think>"), "<think>", "</think>"),
    ],
)
def test_markers_that_may_be_right_are_not_warned_of(special, start, end):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Markers.from_tokenizer(tokenizer(*special), start, end)


def test_tokens_that_look_like_thinking_markers_are_listed_in_the_order_of_their_ids():
    known = tokenizer(
        "<rethinking_x>", "<tool_call>", "<think>", "<|reasoning_effort|>", "[/THINK]", "/no_think"
    )
    known.add_tokens(["<longcat_think>"])  # not special
    assert thinking_tokens(known) == ["<think>", "[/THINK]", "<longcat_think>"]
    assert thinking_tokens(words(["<think>"])) == []


PROMPTS = [
    ("<|user|>q<|assistant|><think>\nso far", True),
    ("<|user|>q<|assistant|><think> so\n", True),
    ("<think>a</think><think>b", True),
    ("q", False),
    ("<|user|>q<|assistant|><think>\n", False),  # opened: THINKING
    ("<|user|>q<|assistant|><think>so</think>", False),
    ("<|user|>q<|assistant|><think>so</think>\n\nthe answer", False),
    ("<|user|>q<|assistant|><think>so<tool_call>{}", False),
    ("<|user|>what is <think>?<|assistant|>", False),  # what a user typed
    ("<|user|>what is <think>?<|assistant|>\nIt is", False),
    ("", False),
]


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS)
@pytest.mark.parametrize("special", [("<think>", "</think>", "<tool_call>"), ()], ids=["special", "pieces"])
def test_a_prompt_that_may_end_inside_a_thought_is_known(prompt, expected, special):
    known = tokenizer(*special)
    markers = Markers.from_tokenizer(known, ends=["<tool_call>"])
    ids = known.encode(prompt, add_special_tokens=False)
    assert markers.opened_before(ids) == expected
    if expected:
        assert markers.initial_phase(ids) == Phase.OPENING


@pytest.mark.parametrize(
    ("turn", "phase"), [("<tool_call>", "SOLUTION"), ("so</t> \n", "SOLUTION"), ("<t>\n", "THINKING")]
)
@pytest.mark.parametrize("special", [("<t>", "</t>", "<tool_call>"), ()], ids=["special", "pieces"])
def test_a_prompt_that_ends_in_any_natural_end_begins_in_the_solution(turn, phase, special):
    known = tokenizer(*special)
    markers = Markers.from_tokenizer(known, "<t>", "Enough.\n</t>", ends=["<tool_call>"])
    ids = known.encode(f"<|user|><t>q<|assistant|>{turn}", add_special_tokens=False)
    assert markers.initial_phase(ids) == Phase[phase]
