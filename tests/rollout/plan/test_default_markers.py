"""The markers of an engine that is given none."""

import warnings

import pytest

from elastic import Budget, Markers
from elastic.budget.markers import MarkerWarning
from elastic.rollout.plan.default_markers import PAIRS, TOOL_CALLS, default_markers
from tests.rollout.scripted import TOOLS, byte_tokenizer, play, scripted_engine


def quiet(tokenizer) -> Markers:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return default_markers(tokenizer)


def texts(markers: Markers) -> tuple[str, str, list[str]]:
    return markers.start_text, markers.end_text, [end.text for end in markers.ends]


def test_think_is_the_default_and_needs_no_word():
    assert texts(quiet(byte_tokenizer())) == ("<think>", "</think>", [])
    both = byte_tokenizer(special=("[THINK]", "[/THINK]", "<think>", "</think>"))
    assert texts(quiet(both)) == ("<think>", "</think>", [])


def test_a_vocabulary_without_any_pair_takes_think_as_text():
    markers = quiet(byte_tokenizer(special=("[NOTE]",)))
    assert texts(markers) == ("<think>", "</think>", [])
    assert len(markers.start) == 7


@pytest.mark.parametrize("pair", PAIRS[1:])
def test_the_pair_that_is_special_is_taken_and_said(pair):
    with pytest.warns(MarkerWarning) as caught:
        markers = default_markers(byte_tokenizer(special=pair))
    assert texts(markers) == (*pair, [])
    assert (len(markers.start), len(markers.end)) == (1, 1)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(
        f"markers: the vocabulary has no token for <think>, but {pair[0]} and {pair[1]}:"
    )
    assert message.endswith("pass markers=Markers.from_tokenizer(tokenizer, start=..., end=...)")


def test_half_a_pair_is_none():
    with pytest.warns(MarkerWarning, match=r"ordinary text to this tokenizer.* special tokens \[THINK\]"):
        markers = default_markers(byte_tokenizer(special=("[THINK]",)))
    assert markers.start_text == "<think>"


def test_the_remedy_is_that_of_the_place():
    with pytest.warns(MarkerWarning, match="; for others, give --start-marker and --end-marker$"):
        default_markers(
            byte_tokenizer(special=("[THINK]", "[/THINK]")), names=("--start-marker", "--end-marker", "--end")
        )


@pytest.mark.parametrize("call", TOOL_CALLS)
def test_a_tool_call_that_is_a_token_ends_thinking(call):
    markers = quiet(byte_tokenizer(special=("<think>", "</think>", call)))
    (end,) = markers.ends
    assert (end.text, end.opens, len(end.spellings[0])) == (call, True, 1)


def test_the_warning_points_at_who_makes_the_engine():
    with pytest.warns(MarkerWarning) as caught:
        engine = scripted_engine(byte_tokenizer(special=("[THINK]", "[/THINK]")))
    assert caught[0].filename.endswith("scripted.py")
    batch = play(engine, "q[THINK]", "a thought that is never ended<eos>", Budget(4, 9))
    assert batch.thinking_tokens.tolist() == [4]
    assert batch.thinking_cut.all()


def test_given_markers_are_taken_as_they_are():
    tokenizer = byte_tokenizer(special=("<think>", "</think>", *TOOLS))
    markers = Markers.from_tokenizer(tokenizer)
    assert scripted_engine(tokenizer, markers=markers).markers is markers
    assert [end.text for end in scripted_engine(tokenizer).markers.ends] == ["<tool_call>"]


def test_other_markers_than_the_models_are_named_when_nothing_thought():
    tokenizer = byte_tokenizer(
        special=("<think>", "</think>", "<seed:think>", "</seed:think>", "<reasoning>")
    )
    engine = scripted_engine(tokenizer)
    with pytest.warns(UserWarning, match="no completion did") as caught:
        play(engine, "q", "<seed:think>hm</seed:think>ok", Budget(9, 60))
    assert str(caught[0].message).endswith("; seen were <seed:think>, </seed:think>")
    with pytest.warns(UserWarning, match="seen were <reasoning>$"):
        play(engine, "q<reasoning>", "hm", Budget(9, 60))
    with pytest.warns(UserWarning, match="the markers of this model$"):
        play(engine, "q", "hm", Budget(9, 60))
