"""The steps of `make gpu`. Each gets a time limit and returns a record; none stops the others.

A record has a status: "passed", "failed", "unavailable" (does not work on this machine; `detail` says why) or
"not run".
"""

import ast
import importlib.util
import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.gpu import processes
from bench.gpu.launches import Choice, best, header, worthwhile
from bench.output.results import ROOT

Record = dict[str, Any]
JOB = "job: "  # what `bench.gpu.measure --list` puts before each name
DONE = "done: "  # and `bench.gpu.measure` before the name of a job whose figures are in its file
OUTCOME = re.compile(r"^(?P<test>\S+::.+?) (?P<outcome>PASSED|FAILED|ERROR)\b")
KEPT = ("results", "tuning", "errors", "skipped")  # of the file of `bench.gpu.measure`
TABLE_FILE = ROOT / "csrc" / "cuda" / "logits_table.h"
SILENCE_S = 20.0  # in which a sweep says something, its start included
ERRORS_FOUND = 86  # exit status that compute-sanitizer is asked for
CUDA_TEST = re.compile(r"^def test_\w+\([^)]*\bcuda\b", re.MULTILINE)


@dataclass
class Context:
    """What every step knows.

    Attributes:
        folder: for files of its own; results that are kept go into the record.
        tiny: shapes that drive the code on a CPU.
        keep: gets what a step has so far, as the record it may end with.
    """

    device: str
    folder: Path
    tiny: bool = False
    rounds: int = 11
    keep: Callable[[Record], None] = field(default=lambda record: None)


def build(context: Context, limit_s: float) -> Record:
    """The extension in place, with this Python's own torch, for this GPU alone."""
    environment = {"ELASTIC_CUDA": "on", "MAX_JOBS": str(os.cpu_count() or 1)}
    if context.device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        environment["ELASTIC_CUDA_ARCHS"] = f"{major}{minor}-real"
    if nvcc := processes.tool("nvcc"):
        environment |= {"CUDACXX": nvcc, "PATH": f"{Path(nvcc).parent}{os.pathsep}{os.environ['PATH']}"}
    done = processes.run([sys.executable, "setup.py", "build_ext", "--inplace"], limit_s, environment)
    return of_command(done)


def test(context: Context, limit_s: float) -> Record:
    """Every test that uses the `cuda` fixture; none may skip."""
    report = context.folder / "tests.xml"
    report.unlink(missing_ok=True)
    files, missing = cuda_test_files()
    for name, packages in missing.items():
        print(f"  not run: {name} needs {', '.join(packages)}")
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--tb=short"]
    command += ["--continue-on-collection-errors", f"--junitxml={report}", *files]
    outcomes: dict[str, str] = {}

    def note(line: str) -> None:
        if found := OUTCOME.match(line):
            outcomes[found["test"]] = found["outcome"]
            context.keep(counted(outcomes))

    done = processes.run(command, limit_s, {"ELASTIC_REQUIRE_CUDA": "1"}, on_line=note)
    record = of_command(done)
    record["not_collected"] = missing
    # Where pytest was killed there is no report, but there is what it printed.
    record |= test_counts(report) if report.exists() else counted(outcomes)
    record["detail"] = f"{record['tests']} tests, {len(record['failures'])} failed" + (
        "" if record["status"] == "passed" else f"; {record['detail']}"
    )
    return record


def counted(outcomes: dict[str, str]) -> Record:
    """Tests so far, and which of them failed, from the lines of `pytest -v`."""
    return {
        "tests": len(outcomes),
        "failures": [test for test, outcome in outcomes.items() if outcome != "PASSED"],
    }


def cuda_test_files() -> tuple[list[str], dict[str, list[str]]]:
    """Test files with CUDA tests; and those that import, or whose conftest.py does, what is not installed."""
    found, missing = [], {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if not CUDA_TEST.search(text):
            continue
        name = str(path.relative_to(ROOT))
        needed = imports(text).union(*(imports(conftest.read_text()) for conftest in conftests(path)))
        absent = [package for package in sorted(needed) if importlib.util.find_spec(package) is None]
        if absent:
            missing[name] = absent
        else:
            found.append(name)
    return found, missing


def conftests(path: Path) -> list[Path]:
    """What pytest loads with a test file; where one fails, no test of any file runs."""
    rooms = [room for room in path.parents if room.is_relative_to(ROOT / "tests")]
    return [room / "conftest.py" for room in rooms if (room / "conftest.py").is_file()]


def imports(text: str) -> set[str]:
    """Top-level packages that a file imports when it is loaded."""
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_counts(report: Path) -> Record:
    cases = list(ET.parse(report).iter("testcase"))
    failures = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {"tests": len(cases), "failures": failures}


def sanitize_ring(context: Context, limit_s: float) -> Record:
    """The same on the ring alone, whose barriers may hang: last of what is checked."""
    return sanitize(context, limit_s, ("--ring",))


def sanitize(context: Context, limit_s: float, options: Sequence[str] = ()) -> Record:
    """compute-sanitizer's three tools on every op at small shapes, side by side."""
    script = [sys.executable, "-m", "bench.gpu.every_op", "--device", context.device, *options]
    plain = processes.run(script, limit_s)
    if plain.code != 0:
        return of_command(plain)
    path = processes.tool("compute-sanitizer")
    if path is None:
        return {"status": "unavailable", "detail": "compute-sanitizer was not found"}
    left = limit_s - plain.seconds
    # Without torch's cache every tensor is an allocation of its own, and a step behind its end is seen.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

    def watch(name: str) -> Record:
        command = [path, "--tool", name, "--error-exitcode", str(ERRORS_FOUND)]
        if name == "memcheck":  # torch asks the driver things that it may answer with an error
            command += ["--report-api-errors", "no"]
        command += script
        return of_sanitizer(processes.run(command, left, environment, show=False))

    tools = ("memcheck", "racecheck", "synccheck")
    found: dict[str, Record] = {}

    def watch_and_keep(name: str) -> None:
        found[name] = watch(name)
        context.keep({"tools": dict(found)})

    with ThreadPoolExecutor(len(tools)) as pool:
        list(pool.map(watch_and_keep, tools))
    found = {name: found[name] for name in tools}
    statuses = {record["status"] for record in found.values()}
    worst = next(status for status in ("failed", "unavailable", "passed") if status in statuses)
    detail = "; ".join(f"{name}: {record['status']}, {record['detail']}" for name, record in found.items())
    return {"status": worst, "detail": detail, "tools": found}


def of_sanitizer(done: processes.Done) -> Record:
    """Tells errors that a tool found from a tool that does not work here."""
    said = [line.removeprefix("=========").strip() for line in done.lines if line.startswith("=========")]
    summary = next((line for line in reversed(said) if "SUMMARY" in line), None)
    if done.code is None:
        return {"status": "unavailable", "detail": f"not done after {done.seconds:.0f} s", "said": said[-40:]}
    if done.code == ERRORS_FOUND:
        return {"status": "failed", "detail": summary or "errors found", "said": said[:200]}
    if done.code == 0 and summary is not None:
        return {"status": "passed", "detail": summary}
    why = next((line for line in said if re.search(r"(?i)error|not supported|unable|fail", line)), done.last)
    return {"status": "unavailable", "detail": why, "said": said[:40]}


def tune(context: Context, limit_s: float) -> Record:
    """Every launch; the fastest become a table, beside the one that there is."""
    record = measure("tune", context, limit_s, SILENCE_S)
    fastest = best([Choice(**entry) for entry in record.get("tuning", [])])
    table = context.folder / TABLE_FILE.name
    table.write_text(header(TABLE_FILE.read_text(), worthwhile(fastest)))
    record["detail"] += f"; table: {table}, for {TABLE_FILE.relative_to(ROOT)}"
    return record


def bench(context: Context, limit_s: float) -> Record:
    return measure("bench", context, limit_s)


def models(context: Context, limit_s: float) -> Record:
    """Decode steps and a training step of a model of real size."""
    return measure("models", context, limit_s)


def measure(kind: str, context: Context, limit_s: float, silence_s: float | None = None) -> Record:
    """Runs `bench.gpu.measure`, and again for what is left where a job takes its process down, or hangs.

    Args:
        silence_s: so long without a line is a hang.
    """
    out = context.folder / f"{kind}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.gpu.measure", kind, *(["--tiny"] if context.tiny else [])]
    listed = processes.run([*command, "--list"], limit_s, show=False)
    if listed.code != 0:
        return of_command(listed)
    left = [line.removeprefix(JOB) for line in listed.lines if line.startswith(JOB)]
    command += ["--out", str(out), "--device", context.device, "--rounds", str(context.rounds)]
    lost, remaining = [], limit_s - listed.seconds

    def note(line: str) -> None:
        if line.startswith(DONE):
            kept = json.loads(out.read_text())
            context.keep({key: kept[key] for key in KEPT})

    while left and remaining > 1:
        told = ["--seconds", f"{remaining:.0f}", "--only", *left]
        done = processes.run([*command, *told], remaining, on_line=note, silence_s=silence_s)
        remaining -= done.seconds
        finished = json.loads(out.read_text())["done"] if out.exists() else []
        before, left = left, [name for name in left if name not in finished]
        if left and done.silent:
            error = f"hangs: no word for {silence_s:g} s after: {done.last.strip()}"
            lost.append({"op": kind, "variant": left[0], "error": error})
            left = left[1:]
        elif left == before and done.code is not None:  # it died in the first job without a word of its own
            lost.append({"op": kind, "variant": left[0], "error": f"exit status {done.code}: {done.last}"})
            left = left[1:]
    return of_measure(json.loads(out.read_text()) if out.exists() else {}, lost, left)


def of_measure(kept: Record, lost: list[Record], left: list[str]) -> Record:
    errors = [*kept.get("errors", []), *lost]
    errors += [{"op": name, "variant": "all", "error": "not measured: time was up"} for name in left]
    done = f"{len(kept.get('done', []))} measured"
    record = {"status": "passed", "detail": done, "errors": errors}
    record |= {key: kept.get(key, []) for key in KEPT if key != "errors"}
    if errors:
        first = errors[0]
        record["status"] = "failed"
        record["detail"] = (
            f"{done}, {len(errors)} errors; {first['op']}, {first['variant']}: {first['error']}"
        )
    return record


def of_command(done: processes.Done) -> Record:
    if done.code == 0:
        return {"status": "passed", "detail": done.last}
    why = "killed at its time limit" if done.code is None else f"exit status {done.code}"
    return {"status": "failed", "detail": f"{why}: {done.last}", "tail": done.lines[-60:]}


# Seconds each may take at most. On an H200 they took: build 144 on two cores, test and sanitize together 71,
# bench 85, tune 11. The last one takes what is left, and leaves out by name what it has no time for.
STEPS = {
    "build": (build, 200),
    "test": (test, 90),
    "sanitize": (sanitize, 120),
    "bench": (bench, 150),
    "tune": (tune, 90),
    "sanitize_ring": (sanitize_ring, 40),
    "models": (models, 240),
}
TOGETHER = {"test", "sanitize"}  # nothing is timed, so they run side by side
