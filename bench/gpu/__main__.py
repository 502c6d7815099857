"""One command on a GPU machine, under ten minutes, no network: `make gpu`, or `python -m bench.gpu`.

Builds the extension in place, runs the CUDA tests, sweeps launch sizes, measures every op, and runs
compute-sanitizer; prints a report and keeps all of it in one JSON file, rewritten as each step ends.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu import report
from bench.gpu.launches import Choice, best
from bench.gpu.steps import STEPS, Context
from bench.results import ROOT, facts, write

SPARE_S = 5.0  # kept for writing and printing


def file_name(run: dict[str, Any]) -> str:
    """`gpu-<device>-<date>-<commit>.json`."""
    device = re.sub(r"[^a-z0-9]+", "-", run["machine"]["device"].lower()).strip("-")
    return f"gpu-{device}-{run['date']}-{run['commit']}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--out", type=Path, default=os.environ.get("ELASTIC_GPU_OUT") or "bench/results")
    parser.add_argument("--rounds", type=int, default=11, help="of every comparison")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the command itself")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"make gpu: needs a CUDA GPU, and torch {torch.__version__} sees none", file=sys.stderr)
        return 2
    out = (ROOT / args.out).absolute()
    run: dict[str, Any] = {
        **facts(torch.device(args.device)),
        "results": [],
        "tuning": [],
        "errors": [],
        "steps": {},
    }
    path = out / file_name(run)
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(args.device, folder, args.tiny, args.rounds)
    began = time.monotonic()
    for name in (name for name in STEPS if name in args.steps):
        step, most_s = STEPS[name]
        limit = min(most_s, args.minutes * 60 - SPARE_S - (time.monotonic() - began))
        print(f"== {name}, at most {max(limit, 0):.0f} s", flush=True)
        start = time.monotonic()
        record = step(context, limit) if limit > 1 else {"status": "not run", "detail": "time was up"}
        for key in ("results", "tuning", "errors"):
            run[key] += record.pop(key, [])
        run["launch_table"] = best([Choice(**entry) for entry in run["tuning"]])
        run["steps"][name] = {**record, "seconds": time.monotonic() - start}
        write(path, run)
    print(f"\n{report.text(run)}\n\n{path}")
    return 0 if all(r["status"] in ("passed", "unavailable") for r in run["steps"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
