"""Grading of answers, one at a time against all cores: items a second of mathematics and of programs.

Times are of the clock, so they mean something on an idle machine only.
"""

import argparse
import sys
from collections.abc import Sequence

from bench import cases
from bench.harness.device import Device
from bench.harness.run import run_case
from bench.output import tables


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.grading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--answers", type=int, default=256, help="of mathematics, in a batch")
    parser.add_argument("--programs", type=int, default=24, help="in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    device, errors = Device("cpu"), []
    for entry in cases.grading(args.answers, args.programs):
        outcome = run_case(entry.make(device), device, args.rounds)
        errors += outcome.errors
        print(tables.block(outcome.rows, outcome.errors, outcome.skipped), flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
