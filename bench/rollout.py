"""Rollouts under budgets: the engine beside `generate` with a budget processor and two calls, on a CPU.

A table for each number of rows and each kind of lengths: time, its share of the bound (what decoding must
read), tokens a second, milliseconds a decode step with the prompts' share, and what of it is not the model.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from bench.harness import random_models
from bench.harness.device import Device
from bench.harness.run import run_case
from bench.ops import rollout
from bench.output import tables


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rollout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=sorted(random_models.SIZES), default="tiny", help="of the model")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64], help="decoded together")
    parser.add_argument(
        "--lengths", nargs="+", choices=("budgets", "natural"), default=["budgets", "natural"]
    )
    parser.add_argument("--group", type=int, default=1, help="rows that share a prompt")
    parser.add_argument("--requests", type=int, default=4, help="as a multiple of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    torch.set_num_threads(1)
    device, errors = Device("cpu"), []
    for rows in args.rows:
        for lengths in args.lengths:
            case = rollout.case(device, args.size, rows, lengths, args.group, args.requests)
            outcome = run_case(case, device, args.rounds)
            errors += outcome.errors
            print(tables.block(outcome.rows, outcome.errors, outcome.skipped), flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
