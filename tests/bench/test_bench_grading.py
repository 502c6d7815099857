"""The bench of grading counts answers that got the right grade, by the clock."""

from bench import cases, grading
from bench.harness.device import Device
from bench.harness.run import run_case
from bench.ops.grade_answers import BASELINE, expressions, of, programs

CPU = Device("cpu")


def test_half_of_the_answers_and_three_of_four_programs_are_right():
    assert expressions(4, 6)[2] == [1.0, 0.0, 1.0, 0.0]
    assert programs(4, 6)[2] == [1.0, 1.0, 0.0, 1.0]


def test_both_ways_are_timed_by_the_clock_on_answers_of_their_own():
    seen = []
    case = of("x", lambda text, answer: seen.append((text, answer)) or expected[answer], expressions, 4)
    expected = {answer: 1.0 - n % 2 for n in range(2, 99) for answer in expressions(1, n)[1]}
    outcome = run_case(case, CPU, 2)
    assert outcome.errors == []
    assert next(row["variant"] for row in outcome.rows) == BASELINE
    assert {row["clock"] for row in outcome.rows} == {"wall"}
    assert len(seen) == len(set(seen)) > 2 * 2 * 4


def test_a_wrong_grade_fails_the_bench():
    outcome = run_case(of("x", lambda *_: 1.0, expressions, 4), CPU, 1)
    assert [error["error"] for error in outcome.errors] == ["AssertionError: 2 of 4 grades are wrong"] * 2


def test_the_command_prints_answers_a_second(capsys):
    assert grading.main(["--answers", "6", "--programs", "2", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "grading, mathematics R=6" in said
    assert "items/s" in said
    assert "grading, programs R=2 tests=4" in said or "bubblewrap" in said
    assert {entry.op for entry in cases.grading(1, 1)} == {"grading"}
