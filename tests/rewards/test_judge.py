"""Pairs for math-verify from many threads: processes as needed, each pair judged once, forks, a clean end."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from elastic.rewards import judge
from elastic.rewards.equal import equal_answers
from elastic.rewards.judge import Workers

ENDLESS = r"(10^{9})!"


def started(workers: Workers) -> list[int]:
    return [worker._process.pid for worker in workers.all if worker._process is not None]


def in_threads(calls: list[Callable[[], bool]]) -> list[bool]:
    results = [False] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_no_process_is_started_for_text_and_numbers(two):
    assert equal_answers(r"\frac12", "0.5")
    assert not equal_answers("even", "odd")
    assert started(two) == []


def test_one_thread_needs_one_process(two):
    assert [two.same("x+x", f"{n}x") for n in (1, 2, 3)] == [False, True, False]
    assert len(started(two)) == 1


def test_threads_share_as_many_processes_as_there_may_be(two):
    pairs = [(rf"\sqrt{{{n}}}\cdot 2", rf"\sqrt{{{4 * n + n % 2}}}") for n in range(2, 14)]
    assert in_threads([partial(two.same, *pair) for pair in pairs]) == [n % 2 == 0 for n in range(2, 14)]
    assert len(started(two)) == 2


def test_a_pair_that_many_threads_ask_for_is_judged_once(two, monkeypatch):
    asked = []
    own = two.same
    monkeypatch.setattr(two, "same", lambda *pair: asked.append(pair) or own(*pair))
    assert in_threads([partial(judge.same_to_math_verify, "x+x", "2x")] * 8) == [True] * 8
    assert asked == [("x+x", "2x")]


def test_a_pair_without_end_keeps_no_other_thread_waiting(two):
    pairs = [(ENDLESS, "5"), *((f"{n}x+x", f"{n + 1}x") for n in range(1, 7))]
    assert in_threads([partial(two.same, *pair) for pair in pairs]) == [False] + [True] * 6


def test_a_forked_process_has_workers_of_its_own(two):
    assert equal_answers("x+x+x", "3x")
    parents = started(two)
    child = os.fork()
    if child == 0:
        own = judge._workers
        right = started(own) == [] and equal_answers("y+y+y", "3y")
        os._exit(0 if right and started(own) and set(started(own)).isdisjoint(parents) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert started(two) == parents
    assert equal_answers("z+z+z", "3z")


def test_a_fork_while_a_pair_is_judged_holds_no_lock_in_the_child(two):
    judging = threading.Thread(target=judge.same_to_math_verify, args=(ENDLESS, "5"))
    judging.start()
    while not started(two):
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(int(judge.same_to_math_verify(ENDLESS, "5")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    judging.join()


def test_a_script_without_a_main_guard_is_run_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('run')\nfrom elastic.rewards import math_reward\n"
        "print(math_reward(r'</think>\\boxed{x+x}', '2x'), math_reward(r'</think>\\boxed{x+x}', '3x'))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout == "run\n1.0 0.0\n"
    assert run.stderr == ""


def test_missing_math_verify_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(judge, "find_spec", lambda name: None)
    judge._math_verify_installed.cache_clear()
    judge._pair.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not equal_answers(r"\sqrt{8}", r"2\sqrt{2}")
            assert not equal_answers(r"\sqrt{9}", "x")
    finally:
        judge._math_verify_installed.cache_clear()
        judge._pair.cache_clear()
    assert len(caplog.records) == 1
    assert "math-verify is not installed" in caplog.text
