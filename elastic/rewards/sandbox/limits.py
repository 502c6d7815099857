"""What a program may use, and what became of it."""

import math
from dataclasses import dataclass, fields
from typing import Literal

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        wall_s: seconds of the clock, for the whole run.
        cpu_s: seconds of processor time, for each process; counted in whole seconds, rounded up.
        memory_mb: MiB, for each process (address space) and for all together (what they and their
            files hold).
        processes: processes and threads at one time.
        output_bytes: of standard output and standard error together.
        file_mb: MiB of all files together, and of each.

    Raises:
        ValueError: a limit that is not above 0 and finite.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_mb: int = 1024
    processes: int = 64
    output_bytes: int = 16 << 20
    file_mb: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < (value := getattr(self, field.name)) < math.inf:
                raise ValueError(f"{field.name} must be above 0 and finite, got {value}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: "ok" is exit code 0, "error" another one; "timeout", "memory" and "output" name the limit that
            ended it; "killed" is any other signal.
        exit_code: as a shell gives it, 128 + N for signal N.
        stdout: what was written before the end; together with `stderr` at most `output_bytes`.
        stderr: likewise.
        seconds: of the clock, the start of the sandbox included.
    """

    status: Status
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float
