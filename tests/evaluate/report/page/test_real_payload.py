"""The page shows what the payload of runs really is."""

from dataclasses import replace

from elastic.evaluate.report.payload import Training, payload
from tests.evaluate.report.payload.runs import answers_to, run_of, texts, told
from tests.evaluate.statistics.samples import answer

LIMITS = [(16, 24, None), (40, 24, None), (None, None, None)]


def run(name, method, correct, **fields):
    samples = [
        told(replace(sample, correct=float(index < correct)), "we have 7 . wait , check : 3 + 4 = 7", "so 7")
        for limits in LIMITS
        for index, sample in enumerate(answers_to("abcd", method, limits))
    ]
    return run_of(name, samples, **fields)


def test_every_part_of_two_runs_is_drawn(opened):
    training = Training("e1", [{"step": step, "reward": step / 9, "entropy": None} for step in range(9)])
    claim = {"claim": "trained is better", "outcome": "open", "low": None, "high": None}
    runs = [run("base", "separate", 1), run("trained", "e1", 3, trainings=[training], claims=[claim])]
    tab = opened(payload(runs, title="two runs"))
    assert len(tab.texts("section")) == 7
    assert not tab.run("document.querySelector('.missing')")
    assert not tab.run("/NaN|undefined|\\[object/.test(document.getElementById('report').innerHTML)")
    assert tab.run("document.querySelectorAll('#accuracy .plot .mark').length") == 2 * len(LIMITS)
    assert tab.texts("#traces .filter label") == ["all 4", "differ 2", "right 1", "wrong 1"]
    assert tab.texts("#traces .answer:first-child .run .kind") == ["THINKING", "FORCED", "SOLUTION"]
    assert "1" in tab.texts("#traces .measures tr:first-child td")  # one re-check


def test_sets_stand_apart(opened):
    samples = [texts(answer("a", data=name, method="e1", budget=LIMITS[0])) for name in ("amc", "aime")]
    tab = opened(payload([run_of("base", samples)], title="two sets"))
    assert tab.texts("#lengths figcaption") == ["Tokens per answer, amc", "Tokens per answer, aime"]
    assert tab.texts("#reasoning th:first-child") == ["data"]
    assert tab.texts("#reasoning td:first-child") == ["amc", "aime"]
