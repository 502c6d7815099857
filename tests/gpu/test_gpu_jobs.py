"""The benches that `make gpu` runs, driven on the CPU: what is wrong is refused, what fails is reported."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.gpu import measure
from bench.gpu.launches import OTHER_BITS, Choice, best, header, lines, worthwhile
from bench.gpu.measure import jobs
from bench.gpu.report import TARGETS
from bench.gpu.tune import PASSES, RINGS, sweep
from bench.harness.case import COMPILED, Case, Variant
from bench.harness.device import Device
from bench.harness.run import run_case
from bench.ops import training_step
from bench.ops.inputs import Exact, Inputs, assert_near
from bench.output import decode
from bench.output.results import ROOT, ROW, row

CPU = Device("cpu")
ON_A_GPU = ("graph node", "one launch", "captured", "compiled")


def case_of(*variants):
    return Case("double", "N=3", "float32", variants, bytes=24)


def test_a_candidate_that_fails_or_is_wrong_is_reported_and_the_others_are_timed():
    x = torch.ones(3)

    def wrong(result):
        assert torch.equal(result, 2 * x), "not doubled"

    def missing():
        raise ImportError("no such library")

    outcome = run_case(
        case_of(
            Variant("eager", lambda: lambda _: x + x, wrong),
            Variant("library", missing),
            Variant("triple", lambda: lambda _: 3 * x, wrong),
            Variant("late", lambda: lambda _: torch.ones(2) + x),
            Variant("product", lambda: lambda _: 2 * x, wrong, repeats=2),
        ),
        CPU,
        rounds=3,
        bytes_per_ms=1e6,
    )
    assert [r["variant"] for r in outcome.rows] == ["eager", "product"]
    errors = {e["variant"]: e["error"] for e in outcome.errors}
    assert errors["library"] == "ImportError: no such library"
    assert errors["triple"] == "AssertionError: not doubled"
    assert errors["late"].startswith("RuntimeError")
    assert not outcome.device_lost


def test_a_row_has_the_keys_that_all_benches_share():
    outcome = run_case(case_of(Variant("eager", lambda: lambda _: None)), CPU, 2, None)
    assert tuple(outcome.rows[0]) == ROW
    assert outcome.rows[0]["ratio_to_eager"] == 1
    assert outcome.rows[0]["ceiling_share"] is None
    with pytest.raises(ValueError, match="got \\['speed'\\]"):
        row(speed=1)


def test_figures_are_of_one_call_where_a_candidate_makes_several():
    clock = iter(float(i) for i in range(100))

    class Fixed(Device):
        def clock(self, call):
            call()
            next(clock)
            return 6.0, 6.0

    rows = run_case(
        case_of(
            Variant("eager", lambda: lambda _: None), Variant("thrice", lambda: lambda _: None, repeats=3)
        ),
        Fixed("cpu"),
        rounds=2,
        bytes_per_ms=6.0,
    ).rows
    assert [r["median_ms"] for r in rows] == [6, 2]
    assert [r["ratio_to_eager"] for r in rows] == [1, 3]
    assert [r["ceiling_share"] for r in rows] == pytest.approx([24 / 6 / 6, 24 / 2 / 6])


def test_the_cpu_runs_every_job_without_an_error():
    ops_and_variants = set()
    for make in [*jobs("bench", tiny=True).values(), *jobs("models", tiny=True).values()]:
        outcome = run_case(make(CPU).without(COMPILED), CPU, rounds=1)
        assert outcome.errors == []
        ops_and_variants |= {(r["op"], r["variant"]) for r in outcome.rows}
    # Graph nodes and what captures aside, every target is a row's.
    assert {
        (op, variant) for op, _, _, variant in TARGETS if not variant.endswith(ON_A_GPU)
    } <= ops_and_variants


def test_whole_models_get_few_rounds_and_one_in_any_case(monkeypatch):
    monkeypatch.setattr(measure.time, "monotonic", lambda: 100.0)
    assert measure.few_rounds(11, until=1000.0)(2.0) == measure.MODEL_ROUNDS
    assert measure.few_rounds(1, until=1000.0)(2.0) == 1
    assert measure.few_rounds(11, until=105.0)(2.0) == 2
    assert measure.few_rounds(11, until=90.0)(2.0) == 1
    assert measure.few_rounds(11, until=float("inf"))(0.0) == measure.MODEL_ROUNDS


def test_whole_models_refer_to_a_ceiling_of_their_own_process_and_do_not_list_it_twice():
    kept = {"results": [], "errors": [], "skipped": [], "bytes_per_ms": None}
    assert measure.measure_one("models", "copy", CPU, 1, True, kept)
    assert kept["results"] == []
    assert kept["bytes_per_ms"] > 0
    assert measure.measure_one("models", "decode B=1", CPU, 1, True, kept)
    shares = {row["variant"]: row["ceiling_share"] for row in kept["results"]}
    assert shares["generate + budget processor"] > 0
    assert "elastic flash" in {note["variant"] for note in kept["skipped"]}


def test_a_step_whose_gradient_or_loss_is_another_is_refused():
    loss, gradient = torch.tensor(0.5), [torch.ones(3), torch.full((2,), 2.0)]
    right = training_step.Agreement()
    right.check((loss, gradient))
    right.check((loss + 1e-3, [part * (1 + 1e-4) for part in gradient]))
    with pytest.raises(AssertionError, match="loss off by"):
        right.check((loss + 0.02, gradient))
    with pytest.raises(AssertionError, match="gradient off by"):
        right.check((loss, [gradient[0], gradient[1] * 1.01]))
    with pytest.raises(AssertionError, match="gradient off by nan"):
        right.check((loss, [gradient[0] * torch.nan, gradient[1]]))


def test_a_decode_step_is_told_with_its_share_of_the_bound_and_no_failure():
    def step(variant, ms, kind="ours", **more):
        sizes = {"op": "decode", "shape": "1.5B B=64 columns=1024", "dtype": "bfloat16", "items": 64}
        return row(**sizes, variant=variant, kind=kind, median_ms=ms, **more)

    slow = step("elastic sdpa, captured", 20.0)
    fast = step("elastic flash, compiled", 4.0, ratio_to_eager=7.25, ceiling_share=0.245, outside=0.12)
    others = [step("all but the model, captured", 0.4, "floor"), step("generate", 29.0, "baseline")]
    assert decode.lines([slow, fast, *others]) == [
        "decode 1.5B B=64 columns=1024, elastic flash, compiled: 4.000 ms, 16,000 tok/s, 24% of the bound, "
        "7.2 x generate (aim: at least 8), 12% outside the model (aim: at most 10%)"
    ]
    assert decode.lines(others) == []


def test_a_gradient_that_is_wrong_in_one_token_or_nowhere_finite_is_refused():
    inputs = Inputs.random(16, 301, torch.float32, CPU, seed=1)
    exact = Exact.of(inputs)
    gradient = torch.zeros(16, 301)
    gradient[inputs.sample()] = exact.gradient.float()
    exact.check(exact.loss.float(), gradient)
    with pytest.raises(AssertionError, match="gradient off by"):
        exact.check(exact.loss.float(), gradient.clone().index_fill_(0, torch.tensor([15]), 0.0))
    with pytest.raises(AssertionError, match="gradient off by nan"):
        exact.check(exact.loss.float(), gradient * torch.nan)
    with pytest.raises(AssertionError, match="loss off by"):
        exact.check(exact.loss.float() + 0.01, gradient)
    with pytest.raises(AssertionError, match="off by nan"):
        assert_near("x", torch.tensor([torch.nan]), torch.zeros(1).double())


def test_triton_peers_are_right():
    """Under Triton's interpreter, in a process of its own: the variable is read when Triton is imported."""
    pytest.importorskip("triton")
    code = """
import torch
from bench.ops import grpo_loss, token_logprobs
from bench.harness.run import run_case
from bench.harness.device import Device

class Pretended(Device):  # offers what only a GPU is offered, and computes on the CPU
    is_cuda = property(lambda self: True, lambda self, value: None)
    clock = lambda self, call: (1.0, 1.0 + (call() is None))
    peak_bytes = lambda self, call: None
    synchronize = flush_cache = release = lambda self: None
    poison = lambda self, like: None

grpo_loss.TOGETHER["block"], grpo_loss.ALONE["block"] = 64, 128
device = Pretended("cpu")
for dtype in (torch.float32, torch.bfloat16):
    for module in (grpo_loss, token_logprobs):
        case = module.case(device, 16, 301, dtype).without("torch.compile")  # half a minute
        outcome = run_case(case, device, 1)
        print(*(e["variant"] + ": " + e["error"] for e in outcome.errors), sep="\\n", end="")
        print(",".join(row["variant"] for row in outcome.rows if "Triton" in row["variant"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    loss = "Triton, 2 reads,Triton, second read from L2,Triton, in place, second read from L2"
    assert done.stdout.splitlines() == [loss, "Triton, 1 read"] * 2, done.stderr


def test_a_sweep_leaves_the_table_as_it_was_and_says_what_does_not_fit():
    asked = []

    def set_launch(cluster, threads, kernel):
        asked.append((cluster, threads, kernel))
        if cluster == 16:
            raise RuntimeError("grpo_loss: launch failed: cluster misconfiguration")
        return cluster != 8

    choices = sweep(CPU, set_launch, 8, 301, torch.float32, rounds=1)
    assert asked[-1] == (-1, 0, "table")
    assert len(choices) == 2 * len(PASSES)
    why = {c.cluster: c.why for c in choices}
    assert "misconfiguration" in why[16]
    assert "refused 8" in why[8]
    assert why[4] == ""
    assert {c.cluster for c in choices if c.median_ms is None} == {8, 16}


def test_a_sweep_of_the_ring_has_the_table_beside_it_and_stores_only_where_there_is_a_gradient():
    choices = sweep(CPU, lambda *_: True, 8, 301, torch.float32, rounds=1, launches=RINGS)
    kernels = {(c.op, c.kernel) for c in choices}
    assert kernels == {
        *(("grpo_loss", kernel) for kernel in ("table", "ring", "ring_direct")),
        *(("token_logprobs", kernel) for kernel in ("table", "ring")),
    }
    assert all(c.median_ms is not None for c in choices)


def test_a_sweep_tells_what_the_table_chose(monkeypatch):
    shape = {"kernel": "pass", "resident": True, "cluster": 8, "threads": 256, "shared_bytes": 40_000}
    extension = SimpleNamespace(set_logits_launch=lambda *_: True, logits_launch=lambda *_: shape)
    monkeypatch.setattr(measure._extension, "load_extension", lambda: extension)
    kept = {"tuning": []}
    assert measure.measure_one("tune", "301 float32", CPU, 1, True, kept)
    tables = [entry for entry in kept["tuning"] if entry["cluster"] == -1]
    assert {entry["op"] for entry in tables} == {"grpo_loss", "token_logprobs"}
    assert {entry["why"] for entry in tables} == {"cluster 8, 256 threads"}


def test_a_sweep_that_changes_the_loss_stops(monkeypatch):
    launched = []

    def set_launch(cluster, threads, kernel):
        launched.append(cluster)
        return True

    from bench.gpu import tune

    right = tune.fused_loss
    monkeypatch.setattr(tune, "fused_loss", lambda *a, **k: right(*a, **k) * (1 + (launched[-1] == 4)))
    with pytest.raises(AssertionError):
        sweep(CPU, set_launch, 8, 301, torch.float32, rounds=1)
    assert launched[-1] == -1


def choice(op, dtype, vocab, launch, median_ms):
    return Choice(op, dtype, vocab, launch[0], launch[1], median_ms, "", launch[2], 9)


def test_the_fastest_launch_is_chosen_and_written_as_a_line_of_the_table():
    choices = [
        choice("grpo_loss", "bfloat16", 151_936, (-1, 0, "table"), 1.4),
        choice("grpo_loss", "bfloat16", 151_936, (8, 256, "table"), 1.25),
        choice("grpo_loss", "bfloat16", 151_936, (4, 0, "ring"), 1.2),
        choice("grpo_loss", "bfloat16", 151_936, (16, 256, "table"), None),
        choice("grpo_loss", "bfloat16", 128_256, (0, 512, "table"), 1.0),
        choice("token_logprobs", "float32", 128_256, (0, 512, "table"), 0.5),
    ]
    streamed = "{9, Scalar::F32, 96192, 160320, false, LogitsKernel::PASS, 0, 512},"
    ring = "{9, Scalar::BF16, 140096, 189920, true, LogitsKernel::RING, 4, 0},"
    assert lines(best(choices)).split("\n") == [
        f"    {ring}  // grpo_loss: 1.200 ms, the table's own 1.400 ms",
        "    {9, Scalar::BF16, 96192, 140096, true, LogitsKernel::PASS, 0, 512},  // grpo_loss: 1.000 ms",
        f"    {streamed}  // token_logprobs: 0.500 ms",
    ]


def test_a_launch_that_rounds_otherwise_is_never_an_entry():
    choices = [
        choice("grpo_loss", "float32", 301, (8, 256, "table"), 1.2),
        replace(choice("grpo_loss", "float32", 301, (4, 0, "ring"), 1.0), why=OTHER_BITS),
    ]
    assert [found["kernel"] for found in best(choices)] == ["table"]


def test_a_table_is_written_anew_with_what_is_worth_an_entry():
    choices = [
        choice("grpo_loss", "bfloat16", 151_936, (-1, 0, "table"), 1.4),
        choice("grpo_loss", "bfloat16", 151_936, (4, 0, "ring"), 1.2),
        choice("token_logprobs", "bfloat16", 151_936, (-1, 0, "table"), 0.6),
        choice("token_logprobs", "bfloat16", 151_936, (1, 0, "ring"), 0.595),
    ]
    empty = (ROOT / "csrc" / "cuda" / "logits_table.h").read_text()
    full = header(empty, worthwhile(best(choices)))
    assert "std::array<MeasuredLaunch, 1> MEASURED = {{\n    {9, Scalar::BF16, 113952, 189920, true" in full
    assert "token_logprobs" not in full
    assert header(full, []) == empty
    with pytest.raises(ValueError, match="expected a line that begins"):
        header("nothing", [])
