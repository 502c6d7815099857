"""The suite as a command: every bench runs, what is wrong fails the run, what is not installed is named."""

import json

import pytest
import torch

from bench import __main__ as command
from bench import cases, suite
from bench.harness import memory
from bench.harness import run as harness
from bench.harness.case import CEILING, COMPILED, COMPILER, Case, Variant, available
from bench.harness.device import Device
from bench.harness.run import Outcome, run_case
from bench.output import tables
from bench.output.results import ROW

CPU = Device("cpu")
DEFAULT = cases.default(cases.tiny(cases.CPU))


def doubling(*more, **options):
    x = torch.ones(64)

    def check(result):
        assert torch.equal(result, 2 * x), "not doubled"

    own = [
        Variant("eager", lambda: lambda _: x + x, check),
        Variant("elastic", lambda: lambda _: 2 * x, check),
    ]
    triple = Variant("triple", lambda: lambda _: 3 * x, check)
    added = [triple if extra == "triple" else extra for extra in more]
    return Case("grpo_loss", "N=64", "float32", [*own, *added], **options)


@pytest.mark.parametrize("number", range(len(DEFAULT)), ids=[entry.op for entry in DEFAULT])
def test_every_bench_runs_and_its_variants_are_right(number):
    case = DEFAULT[number].make(CPU).without(COMPILED)
    outcome = run_case(case, CPU, rounds=1)
    assert outcome.errors == []
    assert {row["kind"] for row in outcome.rows} >= {"ours", "baseline"}
    assert all(tuple(row) == ROW for row in outcome.rows)
    assert all(row["median_ms"] > 0 for row in outcome.rows)
    baseline = next(row for row in outcome.rows if row["variant"] == case.baseline)
    assert baseline["ratio_to_eager"] == 1


def test_every_op_is_in_the_default_set():
    assert {entry.op for entry in DEFAULT} == set(command.OPS)
    assert {entry.op for entry in cases.more(cases.CPU) + cases.scaling()} <= set(command.OPS)


def test_every_curve_has_a_first_point_that_runs():
    entries = cases.scaling(points=1)
    made = {}
    for entry in entries:
        case = entry.make(CPU)
        made[case.axis] = case
        assert {"elastic"} < {variant.name for variant in case.variants}
    assert set(made) == {"N", "V", "rows", "thinking", "G"}
    rows = run_case(made["N"], CPU, rounds=1).rows
    assert {(row["axis"], row["at"]) for row in rows} == {("N", 1024)}


def test_a_wrong_result_is_not_timed_and_fails_the_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cases, "default", lambda _: [cases.Entry("grpo_loss", lambda _: doubling("triple"))])
    assert command.main(["--tiny", "--device", "cpu", "--json", str(tmp_path / "run.json")]) == 1
    run = json.loads((tmp_path / "run.json").read_text())
    assert [row["variant"] for row in run["results"]] == ["eager", "elastic"]
    assert run["errors"][0]["error"] == "AssertionError: not doubled"
    assert "FAILED grpo_loss N=64, triple: AssertionError: not doubled" in capsys.readouterr().err


def test_a_run_without_a_wrong_result_succeeds_and_prints_every_ratio(monkeypatch, tmp_path, capsys):
    absent = Variant("peer", lambda: None, needs=("no-such-package",))
    monkeypatch.setattr(cases, "default", lambda _: [cases.Entry("grpo_loss", lambda _: doubling(absent))])
    assert command.main(["--tiny", "--device", "cpu", "--json", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("cpu-*.json")
    run = json.loads(path.read_text())
    assert {"machine", "versions", "commit", "date"} <= set(run)
    assert run["skipped"][0]["why"] == "no-such-package not installed"
    out = capsys.readouterr().out
    assert "skipped: grpo_loss, peer: no-such-package not installed" in out
    assert " x eager" in out


def test_only_the_ops_asked_for_are_measured(monkeypatch, capsys):
    def other(_):
        raise AssertionError("not asked for")

    entries = [cases.Entry("sample", other), cases.Entry("grpo_loss", lambda _: doubling())]
    monkeypatch.setattr(cases, "default", lambda _: entries)
    assert command.main(["--tiny", "--device", "cpu", "--only", "grpo_loss"]) == 0


def test_entries_that_time_ran_out_for_are_named():
    seen = []
    suite.run([cases.Entry("sample", lambda _: doubling())], CPU, seconds=0, done=seen.append)
    assert seen == [
        Outcome(skipped=[{"op": "sample", "shape": "", "dtype": "", "variant": "all", "why": "time was up"}])
    ]


def test_a_case_that_cannot_be_made_costs_only_itself():
    def broken(_):
        raise MemoryError("too large")

    seen = []
    entries = [cases.Entry("sample", broken), cases.Entry("grpo_loss", lambda _: doubling())]
    suite.run(entries, CPU, seconds=60, done=seen.append, rounds=1)
    assert seen[0].errors[0]["error"] == "MemoryError: too large"
    assert len(seen[1].rows) == 2


@pytest.mark.parametrize(("pace", "calls"), [(0.0, 3), (harness.WARM_S, 2)])
def test_rounds_may_depend_on_how_long_one_takes_and_long_ones_need_no_warm_up(monkeypatch, pace, calls):
    made, asked = [], []
    now = iter(pace * i for i in range(1000))
    monkeypatch.setattr(harness.time, "monotonic", lambda: next(now))

    def rounds(seconds):
        asked.append(seconds)
        return 4

    rows = run_case(Case("x", "", "", [Variant("eager", lambda: made.append)]), CPU, rounds).rows
    assert asked == [pace]
    assert rows[0]["rounds"] == 4
    assert len(made) == calls + 4


def fixed_clock(monkeypatch, **milliseconds):
    """Every call of a variant takes the same time; calls say their name by what they return."""

    def clock(call):
        name = call()
        return milliseconds[name], milliseconds[name]

    monkeypatch.setattr(Device, "clock", lambda self, call: clock(call))


def named(name, key, **options):
    return Variant(name, lambda: lambda _: key, **options)


def test_shares_are_of_the_ceiling_by_bytes_moved(monkeypatch):
    fixed_clock(monkeypatch, eager=40.0, ours=8.0, most=2.0)
    ceiling = named(CEILING, "most", bytes=200, floor=True)
    case = Case("x", "", "", [named("eager", "eager"), named("elastic", "ours"), ceiling], bytes=100)
    rows = {row["variant"]: row for row in run_case(case, CPU, 3).rows}
    assert rows["elastic"]["ceiling_share"] == pytest.approx((100 / 8) / (200 / 2))
    assert rows[CEILING]["ceiling_share"] == 1
    assert rows["elastic"]["ratio_to_eager"] == 5
    assert rows[CEILING]["kind"] == "floor"


def test_times_are_of_equal_work_where_calls_differ_in_it(monkeypatch):
    fixed_clock(monkeypatch, eager=40.0, ours=40.0)
    work = {"eager": [], "elastic": []}

    def way(name, key, made):
        def run(_):
            work[name].append(made)
            return key

        return Variant(name, lambda: run)

    variants = [way("eager", "eager", 50), way("elastic", "ours", 100)]
    rows = run_case(Case("x", "", "", variants, items=100, work=work), CPU, 2).rows
    assert [row["median_ms"] for row in rows] == [80, 40]


def test_peak_memory_is_what_a_call_touches_and_not_what_was_there():
    there = torch.ones(8 << 20)
    assert memory.peak_bytes(lambda: there.neg_()) in (None, *range(1 << 20))
    peak = memory.peak_bytes(lambda: (there + 1).exp_())
    assert peak is None or (32 << 20) * 0.9 < peak < (32 << 20) * 1.2
    twice = memory.peak_bytes(lambda: (there + 1) * 2)
    assert twice is None or (64 << 20) * 0.9 < twice < (64 << 20) * 1.2


def test_what_cannot_be_had_or_made_in_time_is_skipped_by_name(monkeypatch):
    monkeypatch.setattr(harness.time, "monotonic", lambda: 100.0)
    fixed_clock(monkeypatch, eager=40.0)
    variants = [
        Variant("flash", skip="needs a GPU"),
        named("eager", "eager"),
        named("compiled", "eager", takes_s=30.0),
        named("later", "eager", takes_s=20.0),
    ]
    outcome = run_case(Case("x", "", "", variants), CPU, 1, until=120.0)
    assert [row["variant"] for row in outcome.rows] == ["eager", "later"]
    assert {note["variant"]: note["why"] for note in outcome.skipped} == {
        "flash": "needs a GPU",
        "compiled": "no time left, making it takes about 30 s",
    }
    late = run_case(Case("x", "", "", variants[1:2]), CPU, 1, until=99.0)
    assert (late.rows, late.skipped[0]["why"]) == ([], "time was up")


def test_further_values_of_a_row_may_depend_on_every_variants_times(monkeypatch):
    fixed_clock(monkeypatch, eager=40.0, ours=10.0)

    def share(name, timings):
        return {"steps": 5, "outside": timings["elastic"].wall_ms[0] / timings[name].wall_ms[0]}

    variants = [named("eager", "eager"), named("elastic", "ours")]
    outcome = run_case(Case("x", "", "", variants, items=3, extra=share), CPU, 2)
    assert [(row["steps"], row["outside"]) for row in outcome.rows] == [(5, 0.25), (5, 1.0)]
    lines = tables.comparison(outcome.rows).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[-3:-1]] == ["8.00", "25.0%"]


def test_a_compiler_is_looked_for_where_torch_will_look(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not available(COMPILER)
    assert not available("no-such-package")
    assert available("torch")


@pytest.mark.parametrize(("again", "spread"), [(4, 0.0), (lambda round_s: 4, 0.0), (0, 50.0)])
def test_an_unsteady_case_is_measured_again_and_the_steadier_measurement_counts(monkeypatch, again, spread):
    """Times of the first measurement swing between 50 and 150 ms, those of the second are all 70."""
    times = iter([50.0, 150.0, 50.0, 150.0, *[70.0] * 4])

    def clock(self, call):
        call()
        now = next(times)
        return now, now

    monkeypatch.setattr(Device, "clock", clock)
    monkeypatch.setattr(harness, "WARM_S", 0.0)  # no warm-up
    case = Case("x", "", "", [named("eager", "eager")])
    (row,) = run_case(case, CPU, 4, again=again).rows
    assert (row["median_ms"], row["iqr_ms"]) == ((70.0, 0.0) if spread == 0 else (100.0, 100.0))
    assert row["rounds"] == 4


def test_a_steady_case_is_measured_once(monkeypatch):
    fixed_clock(monkeypatch, eager=40.0)

    def never(round_s):
        raise AssertionError("measured again")

    run_case(Case("x", "", "", [named("eager", "eager")]), CPU, 4, again=never)


def test_work_that_differs_from_call_to_call_is_counted_in_the_measurement_that_is_reported(monkeypatch):
    times, made = iter([10.0, 90.0, 10.0, 90.0, *[60.0] * 4]), iter([9, 9, 1, 1, 1, 1, 2, 2, 2, 2])
    work = {"eager": []}
    monkeypatch.setattr(Device, "clock", lambda self, call: (call(), [next(times)] * 2)[1])
    monkeypatch.setattr(harness, "WARM_S", 0.0)
    way = Variant("eager", lambda: lambda _: work["eager"].append(next(made)))
    (row,) = run_case(Case("x", "", "", [way], items=4, work=work), CPU, 4, again=4).rows
    assert row["median_ms"] == 120.0  # 60 ms for 2 things each


def test_a_second_measurement_takes_what_is_left_of_the_share_or_nothing(monkeypatch):
    monkeypatch.setattr(suite.time, "monotonic", lambda: 100.0)
    assert suite.rounds_left(until=110.0)(1.0) == 10
    assert suite.rounds_left(until=110.0)(0.001) == suite.MOST_ROUNDS
    assert suite.rounds_left(until=110.0)(4.0) == 0
    assert suite.rounds_left(until=90.0)(0.1) == 0


def test_the_linear_loss_is_measured_over_several_chunks_of_many_tokens():
    tokens, _, vocab = cases.CPU.linear
    assert tokens >= 8192
    assert tokens / 4 >= cases.LINEAR_CHUNK
    assert tokens * vocab * 4 * 4 < 8e9  # eager's logits, logprobs and their gradients, in bytes
    case = cases.linear_grpo_loss.case(CPU, 16, 8, 61, torch.float32, (4,), names=cases.LINEAR_CHUNKWISE)
    assert [variant.name for variant in case.variants if variant.name in cases.LINEAR_CHUNKWISE] == [
        variant.name for variant in case.variants
    ]
    assert case.shape == "N=16 H=8 V=61 chunk=4"
    baseline = {"names": cases.LINEAR_CHUNKWISE, "baseline": cases.LINEAR_CHUNKWISE[0]}
    outcome = run_case(cases.linear_grpo_loss.case(CPU, 16, 8, 61, torch.float32, (4,), **baseline), CPU, 1)
    assert outcome.errors == []
    assert {row["variant"] for row in outcome.rows if row["ratio_to_eager"] == 1} >= {"checkpointed chunks"}
