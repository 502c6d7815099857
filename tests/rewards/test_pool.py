"""A batch graded on all cores: the values of one by one, whatever becomes of a single row."""

import os
import select
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from elastic.rewards import judge, math_reward
from elastic.rewards import worker as worker_module
from elastic.rewards.cores import default_workers
from elastic.rewards.judge import Workers
from elastic.rewards.pool import PooledReward
from elastic.rewards.worker import Worker
from tests.rewards.different_answers import DIFFERENT
from tests.rewards.same_answers import SAME

ENDLESS = r"(10^{9})!"


def boxed(answer: str) -> str:
    return rf"</think>So \boxed{{{answer}}}."


def hard(count: int) -> tuple[list[str], list[str], list[float]]:
    """Pairs that only math-verify can judge, every other one different."""
    numbers = range(2, count + 2)
    stated = [boxed(rf"\sqrt{{{4 * n}}}+x") for n in numbers]
    return stated, [rf"x+2\sqrt{{{n + n % 2}}}" for n in numbers], [1.0 - n % 2 for n in numbers]


def test_two_hundred_rows_get_the_grades_they_get_one_by_one(two):
    tables = [
        (boxed(stated), answer, grade)
        for table, grade in ((SAME, 1.0), (DIFFERENT, 0.0))
        for pairs in table.values()
        for stated, answer in pairs[:8]
        if "boxed" not in stated
    ]
    stated, answers, _ = zip(*tables, strict=True)
    assert len(stated) >= 200
    together = PooledReward(math_reward, 4).grade_many(stated, answers)
    judge._pair.cache_clear()
    assert together == [math_reward(*pair) for pair in zip(stated, answers, strict=True)]
    assert sum(grade == expected for grade, (*_, expected) in zip(together, tables, strict=True)) >= 195


def test_grades_keep_the_order_of_the_rows():
    turns = [threading.Event() for _ in range(4)]
    turns[3].set()

    def reward(response: str, reference: int) -> float:
        assert turns[reference].wait(30)
        turns[reference - 1].set()  # the last row is the first to end
        return float(response)

    assert PooledReward(reward, 4).grade_many(["7", "5", "3", "1"], [0, 1, 2, 3]) == [7.0, 5.0, 3.0, 1.0]


def test_equal_rows_are_graded_once():
    graded = []

    def reward(response: str, reference: list) -> float:
        graded.append((response, reference[0]))
        return len(response)

    one, other = ["one"], ["other"]  # tests need have no hash
    responses, references = ["a", "bb", "a", "a", "bb"], [one, one, other, one, one]
    assert PooledReward(reward, 2).grade_many(responses, references) == [1, 2, 1, 1, 2]
    assert sorted(graded) == [("a", "one"), ("a", "other"), ("bb", "one")]


def test_rows_without_end_are_wrong_and_cost_no_other_row_its_grade(two):
    stated, answers, expected = hard(8)
    stated[1:1], answers[1:1], expected[1:1] = [boxed(ENDLESS)] * 3, ["5", "7", "5"], [0.0] * 3
    assert PooledReward(math_reward, 4).grade_many(stated, answers) == expected


def test_one_row_keeps_no_other_waiting():
    others = threading.Semaphore(0)

    def reward(response: str, reference: str) -> float:
        if response == "slow":  # ends only when all others have
            return float(all(others.acquire(timeout=30) for _ in range(9)))
        others.release()
        return 0.0

    responses = ["slow", *(str(n) for n in range(9))]
    assert PooledReward(reward, 2).grade_many(responses, [""] * 10) == [1.0] + [0.0] * 9


def test_rows_that_want_too_much_memory_are_wrong_and_cost_no_other_row_its_grade(monkeypatch):
    greedy = "from elastic.rewards import verify\nown = verify.same\n"
    greedy += "verify.same = lambda a, b: own(a, b) if b != '9y' else bytes(1 << 30) == b''\n"
    monkeypatch.setattr(worker_module, "_CODE", worker_module._CODE.replace("from", greedy + "from"))
    monkeypatch.setattr(judge, "Worker", partial(Worker, seconds=30, memory_bytes=300 << 20))
    workers = Workers(2)
    monkeypatch.setattr(judge, "_workers", workers)
    stated, answers, expected = hard(6)
    stated[2:2], answers[2:2], expected[2:2] = [boxed("x"), boxed("z")], ["9y", "9y"], [0.0, 0.0]
    try:
        assert PooledReward(math_reward, 2).grade_many(stated, answers) == expected
    finally:
        workers.close()


def test_processes_killed_from_outside_change_no_grade(two):
    stated, answers, expected = hard(24)
    rows = iter(range(24))

    def reward(response: str, answer: str) -> float:
        if next(rows) % 5 == 4:
            for worker in two.all:
                if (process := worker._process) is not None:
                    os.kill(process.pid, signal.SIGKILL)
        return math_reward(response, answer)

    assert PooledReward(reward, 1).grade_many(stated, answers) == expected


def test_the_first_row_whose_reward_fails_is_the_one_that_is_raised():
    failed = threading.Event()

    def reward(response: str, reference: str) -> float:
        if response == "early":
            assert failed.wait(30)
            raise KeyError("early")
        if response == "late":
            failed.set()
            raise ValueError("late")
        return 1.0

    with pytest.raises(KeyError, match="early"):
        PooledReward(reward, 2).grade_many(["fine", "early", "late"], [""] * 3)


def test_after_a_failure_no_further_row_is_begun():
    begun, raised = [], threading.Event()

    def reward(response: str, reference: str) -> float:
        begun.append(response)
        if response == "0":
            raise ValueError("no grade")
        assert raised.wait(30)
        return 0.0

    with pytest.raises(ValueError, match="no grade"):
        PooledReward(reward, 1).grade_many([str(n) for n in range(100)], [""] * 100)
    raised.set()
    for thread in threading.enumerate():
        if thread.name == "grading":
            thread.join()
    assert begun in (["0"], ["0", "1"])


def test_no_rows_have_no_grades():
    assert PooledReward(math_reward).grade_many([], []) == []


@pytest.mark.parametrize("workers", [0, -2])
def test_workers_below_one_are_refused(workers):
    with pytest.raises(ValueError, match=rf"workers: expected at least 1, got {workers}"):
        PooledReward(math_reward, workers)


def test_processes_of_a_launcher_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_workers() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert default_workers() == 1


SCRIPT = """
import os, signal, sys, threading
from elastic.rewards import judge, math_reward
from elastic.rewards.judge import Workers
from elastic.rewards.pool import PooledReward

signal.signal(signal.SIGINT, signal.default_int_handler)
judge._workers = workers = Workers(2)
both = threading.Barrier(2)

def reward(response, answer):
    both.wait(60)  # so that both processes are needed
    workers.same("x", answer)
    both.wait(60)
    return 0.0

PooledReward(reward, 2).grade_many(["", ""], ["y", "z"])
print(*(worker._process.pid for worker in workers.all), flush=True)

def endless(response, answer):
    os.write(1, b"begun\\n")  # at once: two processes write
    return math_reward(response, answer)

if sys.argv[2:]:
    PooledReward(endless, 2).grade_many([sys.argv[1]] * 99, [str(n) for n in range(99)])
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_end_or_an_interruption_of_the_program_leaves_no_process(interrupted):
    command = [sys.executable, "-c", SCRIPT, boxed(ENDLESS), *(["interrupted"] if interrupted else [])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        handles = [os.pidfd_open(int(pid)) for pid in pids]
        if interrupted:
            assert parent.stdout.readline() == "begun\n"
            parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=60)
    assert len(pids) == 2
    assert ("KeyboardInterrupt" in said) == interrupted
    for handle in handles:
        with os.fdopen(handle) as ended:  # readable when the process has ended
            assert select.select([ended], [], [], 10)[0]
