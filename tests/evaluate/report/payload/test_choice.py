"""What is shown where not everything has room."""

from elastic.evaluate.report.payload.choice import Arm, ProblemKey, choose
from elastic.evaluate.report.payload.places import Place

BASE, TRAINED = Arm("base", "separate"), Arm("trained", "e1")
PLACES = [Place("budget", 10 * order, str(order)) for order in range(9)]


def problems(*verdicts: tuple[float | None, float | None], places: int = 9) -> dict:
    """Each with the same verdicts of both arms at every place."""
    return {
        ProblemKey("set", str(number), "?"): {
            place: {BASE: base, TRAINED: trained} for place in PLACES[:places]
        }
        for number, (base, trained) in enumerate(verdicts)
    }


def ids(choice) -> list[str]:
    return [key.id for key in choice.problems]


def test_problems_on_which_arms_differ_come_first_and_the_rest_in_order() -> None:
    found = problems((1, 1), (0, 0), (1, 0), (0, None), (0, 1))
    assert ids(choose(found, 500, 10**6, 40)) == ["2", "4", "0", "1", "3"]
    assert ids(choose(found, 3, 10**6, 40)) == ["2", "4", "0"]
    assert ids(choose(found, 0, 10**6, 40)) == []


def test_with_room_every_budget_is_shown() -> None:
    assert choose(problems((1, 0)), 500, 10**6, 40).places == PLACES


def test_budgets_give_way_before_problems_and_the_ends_stay() -> None:
    found = problems(*[(1, 0)] * 100)
    all_answers = 100 * 2 * 9
    tight = choose(found, 500, all_answers * 450 // 2, 40)  # an answer takes 250 + 5 * 40 bytes
    assert len(tight.problems) == 100
    assert 3 <= len(tight.places) <= 4
    assert (tight.places[0], tight.places[-1]) == (PLACES[0], PLACES[-1])
    tighter = choose(found, 500, all_answers * 450 // 10, 40)
    assert len(tighter.places) == 3
    assert len(tighter.problems) == 30


def test_rollouts_of_trainings_do_not_take_the_budgets_places() -> None:
    found = problems(*[(1, 0)] * 100)
    found[ProblemKey("step 1", "x", "?")] = {Place("training", 0, "in training"): {TRAINED: 1}}
    choice = choose(found, 500, 60_000, 40)
    assert [place.kind for place in choice.places] == ["budget"] * 3 + ["training"]


def test_one_problem_is_shown_however_little_room_there_is() -> None:
    assert ids(choose(problems((1, 0), (1, 0)), 500, 1, 40)) == ["0"]
