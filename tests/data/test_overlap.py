"""Contamination: shared runs of words between training and evaluation."""

from pathlib import Path

import pytest

from elastic.data import Overlap, Problem, contamination, load

SHARED = Path(__file__).parents[3] / "shared" / "data" / "math"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is absent")

EGGS = "Janet's ducks lay 16 eggs per day; she eats three for breakfast every morning. How many are left?"
TAIL = "can be written as m/n, where m and n are relatively prime positive integers. Find m + n."


def problems(*prompts: str, name: str = "t") -> list[Problem]:
    return [Problem(prompt, "1", f"{name}{number}") for number, prompt in enumerate(prompts)]


def test_the_same_question_is_found_whatever_it_looks_like():
    other = (
        "JANET'S  ducks lay $16$ eggs\nper day: she eats three for breakfast every morning; how many are left"
    )
    assert contamination(problems("Else?", other), problems(EGGS, name="e")) == [Overlap("e0", "t1", 1.0, 19)]
    same = (
        r"The ratio $\dfrac{1}{2} + \ldots + \left( 3 \right)$ of the two sides of a long triangle is what?"
    )
    look = r"The ratio $\frac{1}{2} + \dots + (3)$ of the two sides of a long triangle is what?"
    assert [found.share for found in contamination(problems(same), problems(look))] == [1.0]


def test_a_question_inside_a_longer_problem_is_found():
    long = f"Answer with a number. {EGGS} Think first."
    assert contamination(problems(long), problems(EGGS, name="e")) == [Overlap("e0", "t0", 1.0, 19)]
    assert contamination(problems(EGGS), problems(long)) == [Overlap("t0", "t0", 19 / 25, 19)]


def test_the_share_counts_words_in_runs_and_the_longest_run_is_one_stretch():
    # 26 words: 13 shared, one other, 12 that are too few for a run of 13
    words = [f"w{chr(97 + number)}" for number in range(26)]
    training = problems(" ".join([*words[:13], "x", *words[14:]]))
    assert contamination(training, problems(" ".join(words)), min_share=0.1) == [Overlap("t0", "t0", 0.5, 13)]
    (found,) = contamination(training, problems(" ".join(words)), n=12)
    assert (found.share, found.longest_run) == (25 / 26, 13)


def test_another_number_is_another_word():
    (found,) = contamination(problems(EGGS.replace("16", "17")), problems(EGGS))
    assert (found.share, found.longest_run) == (14 / 19, 14)
    assert contamination(problems(EGGS.replace("three", "four")), problems(EGGS)) == []  # in the middle


def test_phrases_that_many_problems_end_in_are_not_enough():
    training = problems(f"A fair die is rolled four times. The probability that the sum is 12 {TAIL}")
    question = f"In a triangle ABC the medians AD and BE meet at G, and AGE is equilateral. Then cos C {TAIL}"
    assert contamination(training, problems(question)) == []
    assert len(contamination(training, problems(question), min_share=0.1)) == 1


@pytest.mark.parametrize(
    ("question", "text", "found"),
    [
        ("What is the sum of 3 and 4 and 5?", "Say: What is the sum of 3 and 4 and 5? Now.", 1),  # 10 words
        ("What is the sum of 3 and 4 and 5?", "What is the sum of 3 and 4?", 0),
        ("Compute 1 + 1.", "compute 1+1", 1),
        ("Compute 1 + 1.", "Compute 1 + 1 + 2.", 0),  # four words stand in many problems
        ("Compute 1 + 1.", "Compute 1 - 1.", 0),
        ("", "", 0),
        ("$$", "??", 0),
    ],
)
def test_a_short_question_must_be_there_as_a_whole(question, text, found):
    assert len(contamination(problems(text), problems(question))) == found


def test_the_training_problem_that_shares_most_is_named():
    half = " ".join(EGGS.split()[:13])
    (found,) = contamination(problems(half, EGGS, half), problems(EGGS), min_share=0.5)
    assert found.training == "t1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"min_share": 0.0}, r"min_share must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_limits_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        contamination([], [], **options)


@needs_shared
@pytest.mark.parametrize(("name", "count"), [("aime", 0), ("amc", 0), ("math", 9)])
def test_math500_holds_aime_problems_and_the_newer_contests_do_not(name, count):
    training = load(SHARED / "aime_train.json")
    assert len(contamination(training, load(SHARED / f"{name}.json"))) == count
