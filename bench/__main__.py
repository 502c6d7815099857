"""The bench suite: five minutes on two cores; `--full` adds models, lengths and scaling curves.

Prints how many times faster than eager PyTorch each way of each op is, beside time, memory and share of the
memory's rate. Exits with 1 where a result was wrong or a variant failed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OPS = (
    "grpo_loss",
    "token_logprobs",
    "linear_grpo_loss",
    "sample",
    "budget_step_",
    "force_logits_",
    "group_advantage",
    "rollout",
    "training_step",
)
MINUTES, SCALING_MINUTES, FULL_MINUTES = 4.5, 9.0, 15.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="also other models, lengths and scaling curves")
    parser.add_argument("--scaling", action="store_true", help="also the scaling curves")
    parser.add_argument(
        "--only", nargs="+", choices=OPS, default=list(OPS), metavar="OP", help="some of the ops"
    )
    parser.add_argument("--json", type=Path, help="file, or folder for a file named after the machine")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU; 1 gives the steadiest ratios")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: a GPU if CUDA ops are built for it"
    )
    parser.add_argument(
        "--minutes", type=float, help=f"default {MINUTES}, --scaling {SCALING_MINUTES}, --full {FULL_MINUTES}"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="small shapes and one round, to try the command itself"
    )
    args = parser.parse_args(arguments)
    usual = FULL_MINUTES if args.full else SCALING_MINUTES if args.scaling else MINUTES
    args.minutes = args.minutes or usual
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    # Both are read when torch is loaded. Threads that wait actively take the core from whom they wait for.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return measure(args)


def measure(args: argparse.Namespace) -> int:
    import torch

    from bench import cases, suite
    from bench.harness.case import COMPILED
    from bench.harness.device import Device, default_device
    from bench.harness.run import Outcome
    from bench.output import tables
    from bench.output.results import facts, file_name, write

    torch.set_num_threads(args.threads)
    device = Device(args.device or default_device())
    sizes = cases.GPU if device.is_cuda else cases.CPU
    entries = cases.default(cases.tiny(sizes) if args.tiny else sizes)
    if args.full and not args.tiny:
        entries += cases.more(sizes)
    if args.full or args.scaling:
        entries += cases.scaling(1 if args.tiny else None)
    result: dict[str, Any] = {**facts(device.torch), "results": [], "errors": [], "skipped": []}
    path = args.json
    if path is not None and (path.is_dir() or not path.suffix):
        path = path / file_name(result, device.torch)
    print(tables.heading(result, args.threads), flush=True)

    def keep(outcome: Outcome) -> None:
        result["results"] += outcome.rows
        result["errors"] += outcome.errors
        result["skipped"] += outcome.skipped
        print(tables.block(outcome.rows, outcome.errors, outcome.skipped), flush=True)
        if path is not None:
            write(path, result)

    chosen = [entry for entry in entries if entry.op in args.only]
    without = (COMPILED,) if args.tiny else ()
    suite.run(chosen, device, args.minutes * 60, keep, rounds=1 if args.tiny else None, without=without)
    print(tables.summary(result["results"]))
    if path is not None:
        print(path)
    for error in result["errors"]:
        print(f"FAILED {error['op']} {error['shape']}, {error['variant']}: {error['error']}", file=sys.stderr)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
