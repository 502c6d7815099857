"""Rounds and ratios: ways alternate, warm-up does not count, a time limit gives as many rounds as fit."""

import pytest

from bench import suite
from bench.harness import compare


def test_ways_alternate_and_start_in_turn():
    calls = []
    ways = [compare.Timed(name, lambda n, name=name: calls.append((name, n))) for name in "abc"]
    timings = compare.compare(ways, rounds=3, warmup=0)
    assert [name for name, _ in calls] == list("abcbcacab")
    assert [number for _, number in calls] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(len(t.wall_ms) == len(t.cpu_ms) == 3 for t in timings.values())


def test_warmup_rounds_do_not_count():
    calls = []
    timings = compare.compare([compare.Timed("a", calls.append)], rounds=2, warmup=3)
    assert calls == [-3, -2, -1, 0, 1]
    assert len(timings["a"].wall_ms) == 2


def test_ratios_are_medians_of_the_rounds_own_ratios():
    timings = {
        "slow": compare.Timing([10.0, 40.0, 90.0], [2.0, 2.0, 2.0]),
        "fast": compare.Timing([5.0, 10.0, 10.0], [1.0, 1.0, 4.0]),
    }
    assert compare.ratios(timings, "slow", "fast") == (4.0, 2.0)


def test_iqr_is_the_distance_of_the_quartiles():
    assert compare.iqr([1.0, 2.0, 3.0, 4.0, 5.0]) == 2.0
    assert compare.iqr([7.0]) == 0.0


@pytest.mark.parametrize(
    ("round_s", "until", "deadline", "rounds"),
    [
        (2.0, 20.0, 100.0, 10),  # as many as fit
        (9.0, 20.0, 100.0, suite.LEAST_ROUNDS),  # the least, though the share is spent
        (0.001, 20.0, 100.0, suite.MOST_ROUNDS),
        (9.0, 20.0, 25.0, 2),  # no more than there is time for at all
        (50.0, 20.0, 25.0, 1),  # but one, or the case had no figure
        (0.0, 20.0, 100.0, suite.MOST_ROUNDS),
    ],
)
def test_a_case_gets_the_rounds_that_its_share_of_the_time_has_room_for(
    monkeypatch, round_s, until, deadline, rounds
):
    monkeypatch.setattr(suite.time, "monotonic", lambda: 0.0)
    assert suite.rounds_until(until, deadline)(round_s) == rounds
