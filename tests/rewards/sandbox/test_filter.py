"""The filter of system calls as a program for the kernel's machine."""

import platform
import struct

import pytest

from elastic.rewards.sandbox import filter as calls

MACHINES = pytest.mark.parametrize("machine", calls._MACHINES)
ALLOWED, KILLED, PERMISSION, UNKNOWN, FAMILY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061


def verdict(steps: list[tuple[int, int, int, int]], data: bytes) -> int:
    """What the filter answers to a call, computed as the kernel does."""
    loaded = at = 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        if operation == 0x20:
            loaded = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x06:
            return value
        else:
            true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[operation]
            at += yes if true else no


@pytest.fixture
def ask(machine, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    calls.program.cache_clear()
    steps = list(struct.iter_unpack("=HBBI", calls.program()))
    calls.program.cache_clear()
    own = calls._MACHINES[machine][1]
    return lambda number, *arguments, architecture=own: verdict(
        steps, struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    )


@MACHINES
def test_refused_calls_fail_and_no_other(machine, ask):
    column = calls._MACHINES[machine][0]
    refused = {numbers[column] for numbers in calls._REFUSED.values()}
    judged = {numbers[column] for numbers in calls._JUDGED.values()}
    assert len(refused) == len(calls._REFUSED)
    for number in set(range(500)) - judged:
        assert ask(number) == (PERMISSION if number in refused else ALLOWED), number


@MACHINES
@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("clone", (0x01200011,), ALLOWED),  # fork
        ("clone", (0x003D0F00,), ALLOWED),  # a thread
        ("clone", (0x10000011,), PERMISSION),  # a user namespace
        ("clone", (0x00020011,), PERMISSION),  # a mount namespace
        ("clone3", (), UNKNOWN),
        ("socket", (1,), ALLOWED),
        ("socket", (2,), ALLOWED),
        ("socket", (10,), ALLOWED),
        ("socket", (16,), FAMILY),
        ("socket", (40,), FAMILY),
        ("prctl", (1, 9), ALLOWED),
        ("prctl", (1, 0), PERMISSION),
        ("prctl", (4, 0), ALLOWED),
    ],
)
def test_some_calls_are_judged_by_their_arguments(call, arguments, answer, machine, ask):
    assert ask(calls._JUDGED[call][calls._MACHINES[machine][0]], *arguments) == answer


@MACHINES
def test_calls_by_another_table_are_refused(machine, ask):
    assert ask(0, architecture=0x40000003) == KILLED
    assert ask(0x40000000) == UNKNOWN


def test_a_machine_without_a_table_has_no_filter(monkeypatch):
    calls.program.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert calls.program() == b""
    calls.program.cache_clear()
