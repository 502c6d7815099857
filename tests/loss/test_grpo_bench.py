"""The bench itself: variants alternate, ratios are ratios, and a wrong gradient stops it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench import compare, grpo_loss  # noqa: E402


def test_variants_alternate_and_start_in_turn():
    calls = []
    variants = [compare.Variant(name, lambda n, name=name: calls.append((name, n))) for name in "abc"]
    timings = compare.compare(variants, rounds=3, warmup=0)
    assert [name for name, _ in calls] == list("abcbcacab")
    assert [number for _, number in calls] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(len(t.wall_ms) == len(t.cpu_ms) == 3 for t in timings.values())


def test_warmup_rounds_do_not_count():
    calls = []
    timings = compare.compare([compare.Variant("a", calls.append)], rounds=2, warmup=3)
    assert calls == [-3, -2, -1, 0, 1]
    assert len(timings["a"].wall_ms) == 2


def test_ratios_are_medians_of_the_rounds_own_ratios():
    timings = {
        "slow": compare.Timing([10.0, 40.0, 90.0], [2.0, 2.0, 2.0]),
        "fast": compare.Timing([5.0, 10.0, 10.0], [1.0, 1.0, 4.0]),
    }
    assert compare.ratios(timings, "slow", "fast") == (4.0, 2.0)
    assert "| fast | 10.0 | 1.0 | 4.00 | 2.00 |" in compare.table(timings, "slow")


def test_a_wrong_gradient_stops_the_bench(monkeypatch):
    inputs = grpo_loss.Inputs.random(8, 301, grpo_loss.DTYPES["float32"], seed=0)
    assert "fused" in grpo_loss.check(inputs)
    monkeypatch.setattr(grpo_loss, "fused_loss", lambda x, i, inplace: 1.01 * grpo_loss.eager_loss(x, i))
    with pytest.raises(AssertionError, match="fused: gradient off by"):
        grpo_loss.check(inputs)


def test_the_command_runs():
    command = [sys.executable, "-m", "bench.grpo_loss", "--tokens", "16", "--vocab", "999", "--rounds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for dtype in grpo_loss.DTYPES:
        assert f"{dtype}, N=16, V=999" in done.stdout
    assert "times eager by wall time" in done.stdout
