"""Measures of one answer's reasoning, on texts read by hand."""

import re
from pathlib import Path

import pytest

from elastic.evaluate.reasoning import RECHECKS, count_rechecks, mean_or_none, reasoning, repetition
from tests.evaluate.report.payload.runs import told
from tests.evaluate.statistics.samples import answer


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("6 * 8 is 48. Wait, 6 * 8 is 48. Alternatively, 8 * 6.", 2),
        ("Hmm, wait. Let me double-check: 48", 1),  # one after another
        ("a 7 wait : 7 - 9 = 8 ok . wait check : we have 7", 2),
        ("He waited at the checkout, unverified.", 0),  # whole words alone
        ("RECONSIDER it; on  second\nthought no; re-examine and reexamine", 4),
    ],
)
def test_rechecks_are_counted_in_whole_words_and_once_in_a_row(text: str, count: int) -> None:
    assert count_rechecks(text) == count


def test_every_phrase_counts_once() -> None:
    assert {phrase: count_rechecks(f"so {phrase} 7") for phrase in RECHECKS} == dict.fromkeys(RECHECKS, 1)


def test_repetition_is_the_share_of_runs_of_four_words_that_stood_before() -> None:
    assert repetition("a b c d") == 0
    assert repetition("a b c") == 0
    assert repetition("") == 0
    # abcd bcda cdab dabc abcd: the last of five stood before
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("a " * 103) == pytest.approx(99 / 100)


def test_shares_count_sampled_tokens_and_written_results() -> None:
    sample = told(answer(thinking=6, solution=2), "a 3 + 4 = 7 . b 7 - 9 = 8", "so c = -2 answer is 8")
    found = reasoning(sample)
    assert found.solution_share == 0.25
    assert found.steps_in_solution == pytest.approx(1 / 3)
    assert found.rechecks == 0
    assert found.to_dict() == {
        "rechecks": 0,
        "repetition": 0.0,
        "solution_share": 0.25,
        "steps_in_solution": 0.333,
    }


def test_what_the_decoder_forced_is_not_the_model_s() -> None:
    sample = answer(thinking=0, solution=0)
    forced = told(sample, "", "")
    forced = type(forced)(**vars(forced) | {"segments": (("forced", "Wait, check = 4"),)})
    found = reasoning(forced)
    assert (found.rechecks, found.solution_share, found.steps_in_solution) == (0, None, None)


def test_an_answer_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="the text of set/p was not kept"):
        reasoning(answer())


def test_what_is_undefined_is_left_out_of_means() -> None:
    assert mean_or_none([1.0, None, 2.0]) == 1.5
    assert mean_or_none([None]) is None


def test_the_page_states_the_phrases_that_are_counted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("| re-checks |")]
    (phrases,) = re.findall(r"\*(.+?)\*", line)
    assert phrases.replace("actually, no", "actually no").split(", ") == [
        phrase.replace(",", "") for phrase in RECHECKS
    ]
