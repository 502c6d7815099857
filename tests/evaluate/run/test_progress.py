"""How far a run is, and how long the rest takes at its pace."""

import pytest

from elastic.evaluate.run.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "left"), [(10, "30 s"), (60, "3 min"), (3600, "3.0 h")])
def test_the_rest_is_what_this_calls_pace_makes_of_it(capsys, seconds, left) -> None:
    clock = Clock()
    progress = Progress(total=60, done=20, clock=clock)  # 20 were there: they say nothing about the pace
    clock.now += seconds
    progress.add(10)
    assert progress.text(clock.now) == f"30 of 60 answers, about {left} left"


def test_a_log_gets_a_line_now_and_then(capsys) -> None:
    clock = Clock()
    progress = Progress(total=400, done=0, clock=clock)
    for _ in range(40):
        clock.now += 10
        progress.add(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "elastic: eval: 30 of 400 answers, about 6 min left"
    assert len(lines) == 13


def test_silence_can_be_had(capsys) -> None:
    clock = Clock()
    progress = Progress(total=4, done=0, shown=False, clock=clock)
    clock.now += 1000
    progress.add(1)
    assert not capsys.readouterr().err
