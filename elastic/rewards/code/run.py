"""Runs a program on its tests in a sandbox, and says whether it passes all of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from elastic.data.code_tests import CallTest, CodeTest, ProgramTest, StdinTest
from elastic.rewards.code.compare import right_output, right_value
from elastic.rewards.sandbox import PYTHON, Limits, run

_WALL = 5.0  # times the processor time: other work on the machine is not the program's fault
_START_S = 10.0
_EXTRA_BYTES = 1 << 16  # beyond twice the longest right output, of one test
_MOST_TESTS = 64  # of one sandbox
_MOST_BYTES = 64 << 20  # of the inputs of one sandbox
OutputTest = StdinTest | CallTest
_PACKAGE = "elastic.rewards.code.inside"
_RIGHT, _WRONG = "print(int(input()) + 1)\n", "print(input())\n"


@dataclass(frozen=True)
class Rules:
    """How programs are run.

    Attributes:
        timeout_s: seconds of processor time for each test; of the clock it may take five times as many.
        memory_mb: MiB for a program and what it starts.
        sandbox: False runs programs with this process's rights.

    Raises:
        ValueError: a limit that is not above 0.
    """

    timeout_s: float = 6.0
    memory_mb: int = 1024
    sandbox: bool = True

    def __post_init__(self) -> None:
        for name in ("timeout_s", "memory_mb"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name}: must be above 0, got {value}")

    @property
    def wall_s(self) -> float:
        """Seconds of the clock for each test."""
        return _WALL * self.timeout_s

    def limits(self, tests: int, output_bytes: int, file_bytes: int) -> Limits:
        """Of one sandbox. What a test may use is watched inside, more closely."""
        return Limits(
            wall_s=tests * self.wall_s + _START_S,
            cpu_s=self.timeout_s + _START_S,
            memory_mb=self.memory_mb,
            output_bytes=output_bytes,
            file_mb=64 + (file_bytes >> 20),
        )


@lru_cache(maxsize=8)
def check(rules: Rules) -> None:
    """Checks once that programs can be run: that a right one passes and a wrong one does not.

    Raises:
        SandboxMissing: there is no sandbox here; the message says what to install.
        RuntimeError: Python does not run in it.
    """
    for program, expected in ((_RIGHT, True), (_WRONG, False)):
        if _passes_outputs(program, [StdinTest("41", "42")], rules) is not expected:
            raise RuntimeError(f"a {'right' if expected else 'wrong'} program is not graded so under {rules}")


def passes(program: str, tests: Sequence[CodeTest], rules: Rules) -> bool:
    """Whether a program passes all of its tests; the first that it fails is the last that is run.

    Raises:
        ValueError: a test that is a program, and cannot run here whatever the solution is.
    """
    printed = [test for test in tests if not isinstance(test, ProgramTest)]
    if not all(_passes_outputs(program, batch, rules) for batch in _batches(printed)):
        return False
    return all(_passes_program(program, test, rules) for test in tests if isinstance(test, ProgramTest))


def _batches(tests: Sequence[OutputTest]) -> Iterator[list[OutputTest]]:
    """One test, then eight times as many each time: most wrong programs fail the first one."""
    batch: list[OutputTest] = []
    most, size = 1, 0
    for test in tests:
        if batch and (len(batch) == most or size + len(_input(test)) > _MOST_BYTES):
            yield batch
            batch, most, size = [], min(8 * most, _MOST_TESTS), 0
        batch.append(test)
        size += len(_input(test))
    if batch:
        yield batch


def _passes_outputs(program: str, tests: Sequence[OutputTest], rules: Rules) -> bool:
    results = outputs(program, tests, rules)
    return len(results) == len(tests) and all(
        status == "ok" and _right(test, output) for test, (status, output) in zip(tests, results, strict=True)
    )


def outputs(program: str, tests: Sequence[OutputTest], rules: Rules) -> list[tuple[str, bytes]]:
    """Status and output of each test up to the first that is not "ok", as the program's sandbox says.

    Each test has a process of its own, all of them one sandbox.
    """
    most = 2 * max(len(text.encode()) for test in tests for text in _expected(test)) + _EXTRA_BYTES
    plan = {
        "functions": [test.function if isinstance(test, CallTest) else None for test in tests],
        "cpu_s": rules.timeout_s,
        "wall_s": rules.wall_s,
        "output_bytes": most,
    }
    inputs = {f"input-{number}": _input(test).encode() for number, test in enumerate(tests)}
    outcome = run(
        [PYTHON, "-s", "-m", f"{_PACKAGE}.driver"],
        files={"program.py": _source(program), **inputs, **_inside()},
        stdin=json.dumps(plan).encode(),
        limits=rules.limits(len(tests), len(tests) * most + _EXTRA_BYTES, sum(map(len, inputs.values()))),
        sandbox=rules.sandbox,
    )
    return list(_results(outcome.stdout))


def _input(test: OutputTest) -> str:
    return test.arguments if isinstance(test, CallTest) else test.input


def _expected(test: OutputTest) -> tuple[str, ...]:
    return test.expected if isinstance(test, CallTest) else (test.output, *test.accepted)


def _right(test: OutputTest, output: bytes) -> bool:
    return right_value(test, output) if isinstance(test, CallTest) else right_output(test, output)


def _results(stdout: bytes) -> Iterator[tuple[str, bytes]]:
    """What the driver wrote, as far as it has its form: a program may have written into it."""
    while stdout:
        line, _, stdout = stdout.partition(b"\n")
        try:
            status, count = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            return
        if not isinstance(count, int) or not 0 <= count <= len(stdout):
            return
        yield str(status), stdout[:count]
        stdout = stdout[count:]


def _passes_program(program: str, test: ProgramTest, rules: Rules) -> bool:
    outcome = run(
        [PYTHON, "-s", "-m", f"{_PACKAGE}.checker", str(rules.timeout_s), str(rules.wall_s)],
        files={"program.py": _source(program), **_inside()},
        stdin=test.program.encode(),
        limits=rules.limits(1, _EXTRA_BYTES, 0),
        sandbox=rules.sandbox,
    )
    said = outcome.stdout.decode(errors="replace")
    if said.startswith("unusable: "):
        raise ValueError(f"tests: a test that is a program cannot run: {said.removeprefix('unusable: ')}")
    return said == "passed"


def _source(program: str) -> bytes:
    return program.encode(errors="replace")  # a tokenizer may leave half a character


@lru_cache(maxsize=1)
def _inside() -> Mapping[str, str]:
    """The files of `elastic.rewards.code.inside`, in packages that hold nothing else."""
    folder = Path(__file__).parent / "inside"
    parts = _PACKAGE.split(".")
    empty = {"/".join([*parts[:depth], "__init__.py"]): "" for depth in range(1, len(parts))}
    return empty | {"/".join([*parts, path.name]): path.read_text() for path in sorted(folder.glob("*.py"))}
