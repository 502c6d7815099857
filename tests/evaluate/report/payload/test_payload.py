"""The whole record: its parts, its size, and texts that are not what they seem."""

import json
import random
import re

import pytest

from elastic.evaluate.report.page import render
from elastic.evaluate.report.payload import ReportRun, payload
from elastic.evaluate.report.payload.payload import MOST_BYTES
from tests.evaluate.report.payload.runs import answers_to, run_of, told
from tests.evaluate.statistics.samples import answer

LIMITS = [(512, 1024, None), (1024, 1024, None), (2048, 1024, None), (None, None, None)]
EVIL = "</script><script>alert(1)</script><!-- \u2028 \u202e \ud800 & \"'"


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(("so", "the", "sum", "is", "48", "<b>", "wait,", "é", "="), k=count))


def run_with_500_problems(name: str, method: str) -> ReportRun:
    """Thoughts of 100 to 6,000 words under each of four budgets."""
    rng = random.Random(name)
    samples = []
    for limits in LIMITS:
        for number in range(500):
            length = int(rng.lognormvariate(6.5, 0.8))
            sample = answer(
                *(f"math500-{number}", float(rng.random() < 0.5)),
                method=method,
                budget=limits,
                tokens=length + 300,
                thinking=length,
                solution=300,
            )
            samples.append(told(sample, words(rng, length), words(rng, 200)))
    return run_of(name, samples)


def test_500_problems_of_realistic_length_stay_below_3_mb_and_what_is_gone_is_said() -> None:
    runs = [run_with_500_problems("base", "separate"), run_with_500_problems("trained", "e1")]
    record = payload(runs, title="MATH500")
    page = render(record).encode()
    assert 2_500_000 < len(page) < 3_000_000
    assert len(record["traces"]["problems"]) == 500
    budgets, first, others = record["notes"]
    assert budgets.startswith("They show 3 of 4 budgets: 512 + 1024, ")
    assert re.fullmatch(r"Texts of more than \d{4} characters are shown without their middle\.", first)
    number, length = re.fullmatch(r"From problem (\d+) on texts of more than (\d+) .*", others).groups()
    assert int(number) > 40
    assert int(length) > 100
    for problem, marked in (
        (record["traces"]["problems"][499], True),
        (record["traces"]["problems"][0], False),
    ):
        texts = [text for _, text in problem["answers"]["base/separate"]["none"]["segments"]]
        assert any(len(text) < 500 for text in texts if "characters left out" in text) == marked


def test_the_most_problems_are_the_caller_s() -> None:
    run = run_of("base", answers_to([str(n) for n in range(9)], "e1", LIMITS[0]))
    record = payload([run], title="few", most_problems=4)
    assert len(record["traces"]["problems"]) == 4
    assert record["notes"] == [
        "The traces show 4 of 9 problems, first those on which methods differ at some budget."
    ]
    assert payload([run], title="none", most_problems=0)["traces"]["problems"] == []


def test_the_record_passes_through_json_and_the_page_whatever_a_model_wrote() -> None:
    sample = told(answer("p"), EVIL, EVIL)
    record = payload([run_of("base", [sample])], title=EVIL)
    page = render(record)
    assert page.count("<script") == page.count("</script>") == 2
    (text,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert json.loads(text) == record


def test_it_names_its_runs_versions_and_day() -> None:
    run = run_of("base", answers_to("p", "e1", LIMITS[0]), facts={"model": "tiny"}, notes=["A note."])
    record = payload([run], title="made up")
    assert record["runs"] == [{"name": "base", "kind": "evaluation", "facts": {"model": "tiny"}}]
    assert record["notes"] == ["A note."]
    assert {"elastic", "torch", "date"} <= set(record["made"])
    assert MOST_BYTES < 3_000_000


@pytest.mark.parametrize(
    ("runs", "settings", "message"),
    [
        ([], {}, "runs must not be empty"),
        ([ReportRun("a", "demo")] * 2, {}, "unique names, got a, a"),
        ([ReportRun("a", "demo")], {"most_problems": -1}, "most_problems: must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(runs: list[ReportRun], settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        payload(runs, title="made up", **settings)
