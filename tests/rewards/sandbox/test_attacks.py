"""Attacks on the machine, the grader or the next run: all are contained."""

import os
import uuid

import pytest

from tests.rewards.sandbox.attacks import ATTACKS
from tests.rewards.sandbox.programs import living, needs_sandbox, python

pytestmark = needs_sandbox


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_contained_and_the_next_run_is_as_ever(name):
    attack = ATTACKS[name]
    token = uuid.uuid4().hex
    outcome = python(attack.program, token, str(os.getpid()), limits=attack.limits)
    assert outcome.status in attack.ends, outcome
    assert outcome.stdout.startswith(attack.prints)
    assert len(outcome.stdout) + len(outcome.stderr) <= attack.limits.output_bytes
    assert not living(token)
    after = python("import os; print(6 * 7, sorted(os.listdir('/tmp') + os.listdir()))")
    assert (after.status, after.stdout) == ("ok", b"42 ['program']\n")
