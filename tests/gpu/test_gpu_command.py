"""`make gpu` as a command: without a GPU, with steps that fail, with processes that die."""

import json
import subprocess
import sys
import threading
import time

import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import processes, steps
from bench.gpu.processes import Done
from bench.output.results import ROOT, ROW

TINY = ["--device", "cpu", "--tiny", "--rounds", "1"]


def results(folder):
    (path,) = folder.glob("gpu-*.json")
    return json.loads(path.read_text())


def test_without_a_gpu_it_says_so_in_one_line_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "make gpu: needs a CUDA GPU" in err


def test_a_dry_run_measures_every_op_prints_a_table_and_keeps_it(tmp_path, capsys):
    assert command.main([*TINY, "--steps", "bench", "--out", str(tmp_path)]) == 0
    run = results(tmp_path)
    assert {"machine", "versions", "commit", "date", "results"} <= set(run)
    assert {r["op"] for r in run["results"]} >= {
        "copy",
        "grpo_loss",
        "token_logprobs",
        "budget_step_",
        "force_logits_",
    }
    assert all(tuple(r) == ROW for r in run["results"])
    assert run["errors"] == []
    printed = capsys.readouterr().out
    assert "ceiling: " in printed
    assert "| elastic, in place" in printed


def test_each_step_is_on_disk_before_the_next_begins_and_no_failure_stops_the_rest(
    tmp_path, monkeypatch, capsys
):
    seen = []

    def first(context, limit_s):
        return {"status": "failed", "detail": "broken", "errors": [{"op": "x", "variant": "y", "error": "z"}]}

    def second(context, limit_s):
        seen.append(results(tmp_path))
        context.keep({"results": [{"op": "kept"}]})
        seen.append(results(tmp_path))
        return {"status": "unavailable", "detail": "not here"}

    monkeypatch.setattr(command, "STEPS", {"build": (first, 60), "test": (second, 60)})
    assert command.main([*TINY, "--steps", "build", "test", "--out", str(tmp_path)]) == 1
    statuses = {name: step["status"] for name, step in seen[0]["steps"].items()}
    assert statuses == {"build": "failed", "test": "running"}
    assert seen[0]["results"] == []
    assert seen[1]["results"] == [{"op": "kept"}]
    assert seen[1]["errors"] == results(tmp_path)["errors"] == [{"op": "x", "variant": "y", "error": "z"}]
    assert results(tmp_path)["results"] == []  # a step's last word counts
    printed = capsys.readouterr().out
    assert "FAILED x" in printed
    assert "not here" in printed


def test_steps_that_time_nothing_run_side_by_side_and_the_file_has_both(tmp_path, monkeypatch):
    meet = threading.Barrier(2, timeout=30)  # broken where one runs after the other

    def step(name):
        def run(context, limit_s):
            context.keep({"skipped": [{"op": name, "shape": "", "variant": "all", "why": "half"}]})
            meet.wait()
            return {"status": "passed", "detail": "", "errors": [], "skipped": []}

        return run

    monkeypatch.setattr(command, "STEPS", {name: (step(name), 60) for name in ("test", "sanitize")})
    assert command.main([*TINY, "--steps", "test", "sanitize", "--out", str(tmp_path)]) == 0
    run = results(tmp_path)
    assert {name: step["status"] for name, step in run["steps"].items()} == {
        "test": "passed",
        "sanitize": "passed",
    }
    assert run["skipped"] == []


def test_steps_that_there_is_no_time_for_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "STEPS", {"build": (lambda *_: {"status": "passed", "detail": ""}, 60)})
    assert command.main([*TINY, "--minutes", "0", "--steps", "build", "--out", str(tmp_path)]) == 1
    assert results(tmp_path)["steps"]["build"]["status"] == "not run"


STUCK = """
import sys, time
from bench.gpu import __main__ as command, processes

def first(context, limit_s):
    return {"status": "passed", "detail": "", "results": [], "tuning": []}

def stuck(context, limit_s):
    context.keep({"errors": [{"op": "half", "variant": "", "error": "way"}]})
    processes.run([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(90)"], 90)

command.report.bench_table = lambda results: ""
command.STEPS = {"build": (first, 60), "bench": (stuck, 60), "tune": (first, 60)}
command.SPARE_S = 0.5
command.main(["--device", "cpu", "--tiny", "--out", sys.argv[1], "--minutes", sys.argv[2]])
"""


@pytest.mark.parametrize("how", ["deadline", "terminated"])
def test_a_step_that_does_not_end_is_ended_and_the_file_has_what_there_was(tmp_path, how):
    minutes = "0.1" if how == "deadline" else "5"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path), minutes],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if how == "terminated" and "begun" in line:
            process.terminate()
    assert process.wait() == 1
    assert time.monotonic() - began < 60
    assert ("0.1 minutes are over" if how == "deadline" else "terminated") in said[-1]
    run = results(tmp_path)
    statuses = {name: step["status"] for name, step in run["steps"].items()}
    assert statuses == {"build": "passed", "bench": "running"}
    assert run["errors"] == [{"op": "half", "variant": "", "error": "way"}]


def test_everything_takes_seven_minutes_at_most_and_what_matters_most_comes_first():
    assert command.parse([]).minutes <= 7
    assert list(steps.STEPS) == ["build", "test", "sanitize", "bench", "tune", "sanitize_ring", "models"]
    together = command.together(list(steps.STEPS))
    assert together == [["build"], ["test", "sanitize"], ["bench"], ["tune"], ["sanitize_ring"], ["models"]]
    assert command.together(["build", "sanitize", "models"]) == [["build"], ["sanitize"], ["models"]]


def test_jobs_are_kept_as_each_ends(tmp_path, monkeypatch):
    out, seen = tmp_path / "bench.json", []

    def run(argv, limit_s, environment=None, show=True, on_line=None, silence_s=None):
        if "--list" in argv:
            return Done(0, ["job: a", "job: b"], 0.1)
        for done in (["a"], ["a", "b"]):
            kept = {"done": done, "results": [{"op": name} for name in done]}
            kept |= {"errors": [], "tuning": [], "skipped": []}
            out.write_text(json.dumps(kept))
            on_line("done: " + done[-1])
        return Done(0, [], 1.0)

    monkeypatch.setattr(processes, "run", run)
    steps.bench(steps.Context("cpu", tmp_path, keep=lambda record: seen.append(len(record["results"]))), 60)
    assert seen == [1, 2]


def test_a_job_that_hangs_is_killed_and_the_others_go_on(tmp_path, monkeypatch):
    job = """
import json, sys, time
if "--list" in sys.argv:
    print("job: a\\njob: stuck\\njob: b")
    sys.exit()
out, names = sys.argv[sys.argv.index("--out") + 1], sys.argv[sys.argv.index("--only") + 1 :]
done = []
try:
    done = json.load(open(out))["done"]
except FileNotFoundError:
    pass
for name in names:
    print(name, flush=True)
    if name == "stuck":
        time.sleep(60)
    done.append(name)
    json.dump({"done": done, "results": [], "errors": [], "tuning": [], "skipped": []}, open(out, "w"))
"""
    right = processes.run

    def run(argv, limit_s, **options):
        return right([sys.executable, "-c", job, *argv[3:]], limit_s, **options)

    monkeypatch.setattr(processes, "run", run)
    began = time.monotonic()
    record = steps.measure("tune", steps.Context("cpu", tmp_path), 40, silence_s=1.5)
    assert time.monotonic() - began < 30
    assert json.loads((tmp_path / "tune.json").read_text())["done"] == ["a", "b"]
    assert record["status"] == "failed"
    (error,) = record["errors"]
    assert error["variant"] == "stuck"
    assert error["error"] == "hangs: no word for 1.5 s after: stuck"


def test_tests_that_ran_before_pytest_was_killed_are_counted(tmp_path, monkeypatch):
    def run(argv, limit_s, environment=None, show=True, on_line=None, silence_s=None):
        for line in (
            "tests/budget/test_cuda.py::test_a[1-x y] PASSED   [  1%]",
            "tests/budget/test_cuda.py::test_b FAILED          [  2%]",
            "tests/budget/test_cuda.py::test_c ",
        ):
            on_line(line)
        return Done(None, ["the last line"], limit_s)

    monkeypatch.setattr(processes, "run", run)
    seen = []
    record = steps.test(steps.Context("cpu", tmp_path, keep=seen.append), 60)
    assert record["status"] == "failed"
    assert record["detail"] == "2 tests, 1 failed; killed at its time limit: the last line"
    assert record["failures"] == ["tests/budget/test_cuda.py::test_b"]
    assert [kept["tests"] for kept in seen] == [1, 2]


def test_a_command_is_killed_at_its_limit_with_what_it_started():
    code = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    began = time.monotonic()
    done = processes.run([sys.executable, "-c", code], 1.0, show=False)
    assert time.monotonic() - began < 30  # not the minute that the child would hold the pipe
    assert done.code is None
    assert done.lines == ["begun"]


def test_a_job_that_takes_its_process_down_costs_only_itself(tmp_path, monkeypatch):
    """Of three jobs the second kills the process, once after the first was kept, once as the first of all."""

    def run(argv, limit_s, environment=None, show=True, on_line=None, silence_s=None):
        if "--list" in argv:
            return Done(0, ["a warning", "job: a", "job: b b", "job: c"], 0.1)
        out = tmp_path / "bench.json"
        kept = json.loads(out.read_text()) if out.exists() else {"done": [], "errors": [], "results": []}
        for name in argv[argv.index("--only") + 1 :]:
            if name == "b b":
                return Done(-11, ["Segmentation fault"], 1.0)
            kept["done"].append(name)
            kept["results"].append({"op": name})
            out.write_text(json.dumps(kept))
        return Done(0, [], 1.0)

    monkeypatch.setattr(processes, "run", run)
    record = steps.bench(steps.Context("cpu", tmp_path), 60)
    assert [r["op"] for r in record["results"]] == ["a", "c"]
    assert record["status"] == "failed"
    assert record["errors"] == [
        {"op": "bench", "variant": "b b", "error": "exit status -11: Segmentation fault"}
    ]


def test_jobs_that_time_ran_out_for_are_errors(tmp_path, monkeypatch):
    def run(argv, limit_s, environment=None, show=True, on_line=None, silence_s=None):
        return Done(0, ["job: a"], 0.1) if "--list" in argv else Done(None, [], limit_s)

    monkeypatch.setattr(processes, "run", run)
    record = steps.bench(steps.Context("cpu", tmp_path), 60)
    assert record["errors"] == [{"op": "a", "variant": "all", "error": "not measured: time was up"}]


@pytest.mark.parametrize(
    ("code", "lines", "status", "detail"),
    [
        (0, ["========= ERROR SUMMARY: 0 errors"], "passed", "ERROR SUMMARY: 0 errors"),
        (
            86,
            ["========= Invalid __global__ write", "========= ERROR SUMMARY: 1 error"],
            "failed",
            "ERROR SUMMARY: 1 error",
        ),
        (
            255,
            ["========= COMPUTE-SANITIZER", "========= Error: Device not supported."],
            "unavailable",
            "Error: Device not supported.",
        ),
        (0, ["every op agrees with the CPU"], "unavailable", "every op agrees with the CPU"),
        (None, ["========= COMPUTE-SANITIZER"], "unavailable", "not done after 9 s"),
    ],
)
def test_what_a_sanitizer_found_is_told_from_one_that_does_not_work(code, lines, status, detail):
    record = steps.of_sanitizer(Done(code, lines, 9.0))
    assert (record["status"], record["detail"]) == (status, detail)


def test_cuda_tests_are_found_by_their_fixture_and_what_they_lack_is_named():
    found, missing = steps.cuda_test_files()
    assert "tests/budget/test_cuda.py" in found
    assert "tests/loss/test_cuda_loss.py" in found
    assert "tests/data/test_files.py" not in found
    assert missing == {}  # everything is installed where this runs
    assert steps.imports("import a.b\nfrom c.d import e\nfrom . import f\ndef g():\n    import h\n") == {
        "a",
        "c",
    }


def test_test_counts_are_read_from_the_report(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        "<testsuites><testsuite><testcase classname='a' name='t1'/><testcase classname='a' name='t2'>"
        "<failure/></testcase><testcase classname='b' name='t3'><error/></testcase></testsuite></testsuites>"
    )
    assert steps.test_counts(report) == {"tests": 3, "failures": ["a::t2", "b::t3"]}


def test_the_command_starts_where_nothing_is_built_yet():
    code = "import sys; sys.modules['elastic._C'] = None; import bench.gpu.__main__; print('started')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "started", done.stderr


def test_every_op_agrees_with_the_cpu():
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu.every_op", "--device", "cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "every op agrees with the CPU", done.stderr
