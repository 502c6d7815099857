"""The profile of a decode step."""

import pytest

from bench import decode_step


def test_the_parts_of_a_step_add_up_and_the_engine_is_left_as_it_was():
    before = decode_step.decode.emit, decode_step.ops.sample
    table, step_ms = decode_step.measure(rows=4, runs=1)
    lines = table.splitlines()
    assert (decode_step.decode.emit, decode_step.ops.sample) == before
    shares = {line.split("|")[1].strip(): float(line.split("|")[5].rstrip(" %")) for line in lines[2:]}
    outside = shares.pop("outside the model")
    assert shares.pop("a step") == 100
    assert shares.pop("bound") > 0
    assert f"| a step | {step_ms:.3f} |" in table
    assert all(share >= 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    assert outside == pytest.approx(100 - shares["model"], abs=0.2)
