"""Programs graded as a batch: the grades of one by one, and nothing that runs on."""

import os
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from elastic.data.code_tests import StdinTest
from elastic.rewards.code import code_reward
from elastic.rewards.pool import PooledReward
from tests.rewards.code.answers import response
from tests.rewards.sandbox.programs import needs_sandbox

pytestmark = needs_sandbox

ADD, DOUBLE = (StdinTest("1\n2\n", "3"), StdinTest("5\n-7\n", "-2")), [StdinTest("4\n4\n", "8")]
RIGHT, TWICE = "print(int(input()) + int(input()))", "print(2 * int(input()))"
PROGRAMS = [  # right of ADD, right of DOUBLE
    (RIGHT, 1.0, 1.0),
    (TWICE, 0.0, 1.0),
    ("while True: pass", 0.0, 0.0),
    ("x = [bytearray(1 << 20) for _ in range(10**6)]", 0.0, 0.0),
    ("import sys\nsys.exit(0)", 0.0, 0.0),
    ("print(", 0.0, 0.0),
]


def test_a_batch_of_programs_gets_the_grades_they_get_one_by_one():
    reward = partial(code_reward, timeout_s=1.0, memory_mb=256)
    texts = [response(program) for program, *_ in PROGRAMS]
    responses, references = (
        [*texts, *texts, *texts[:2]],
        [ADD] * len(texts) + [DOUBLE] * len(texts) + [ADD] * 2,
    )
    expected = [grade for column in (1, 2) for grade in (row[column] for row in PROGRAMS)] + [1.0, 0.0]
    assert PooledReward(reward, 4).grade_many(responses, references) == expected
    assert [reward(*pair) for pair in zip(texts[:2], [ADD, ADD], strict=True)] == expected[:2]


SCRIPT = """
import signal, sys
from functools import partial
from elastic.data.code_tests import StdinTest
from elastic.rewards.code import code_reward
from elastic.rewards.pool import PooledReward

signal.signal(signal.SIGINT, signal.default_int_handler)
reward = partial(code_reward, timeout_s=100.0)
tests = [StdinTest("", "1")]
assert reward(sys.argv[1], tests) == 1.0
print("begun", flush=True)
PooledReward(reward, 2).grade_many([sys.argv[2], sys.argv[2] + " "] * 9, [tests] * 18)
"""


def test_an_interruption_waits_for_no_program_and_leaves_none():
    sleeper = response("import time\nwhile True: time.sleep(1)")
    command = [sys.executable, "-c", SCRIPT, response("print(1)"), sleeper]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        until = time.monotonic() + 60
        while len(running := children(parent.pid)) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        handles = [os.pidfd_open(pid) for pid in running]
        parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    for handle in handles:
        with os.fdopen(handle) as ended:  # readable when the process has ended
            assert select.select([ended], [], [], 10)[0]


def children(pid: int) -> list[int]:
    """Of all of the process's threads."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for found in lists for child in found]
