"""One command on a GPU machine, seven minutes at most, no network: `make gpu`, or `python -m bench.gpu`.

Builds the extension in place, runs the CUDA tests beside compute-sanitizer, measures every op, sweeps launch
sizes, and measures decode steps and a training step of a 1.5B model; prints a report and keeps all of it in
one JSON file, which at any time holds what was measured so far. The deadline ends it, whatever a step does.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.gpu import processes, report
from bench.gpu.kept import Kept
from bench.gpu.steps import STEPS, TOGETHER, Context, Record
from bench.output.results import ROOT, facts

MINUTES = 7.0
SPARE_S = 15.0  # kept for ending the last step, writing and printing


def file_name(run: dict[str, Any]) -> str:
    """`gpu-<device>-<date>-<commit>.json`."""
    device = re.sub(r"[^a-z0-9]+", "-", run["machine"]["device"].lower()).strip("-")
    return f"gpu-{device}-{run['date']}-{run['commit']}.json"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together")
    parser.add_argument("--out", type=Path, default=os.environ.get("ELASTIC_GPU_OUT") or "bench/results")
    parser.add_argument("--rounds", type=int, default=11, help="of every comparison")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the command itself")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"make gpu: needs a CUDA GPU, and torch {torch.__version__} sees none", file=sys.stderr)
        return 2
    found = facts(torch.device(args.device))
    kept = Kept((ROOT / args.out).absolute() / file_name(found), found)
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(args.device, folder, args.tiny, args.rounds)
    # Steps keep to their limits; what does not is ended here.
    deadline = threading.Timer(max(args.minutes * 60, SPARE_S), end_at_once, [kept, args.minutes])
    deadline.daemon = True
    deadline.start()
    terminated = signal.signal(signal.SIGTERM, lambda *_: end_at_once(kept, None))
    try:
        for names in together([name for name in STEPS if name in args.steps]):
            left = args.minutes * 60 - SPARE_S - (time.monotonic() - began)
            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(lambda name, left=left: run_step(name, context, kept, left), names))
    finally:
        deadline.cancel()
        signal.signal(signal.SIGTERM, terminated)
    print(f"\n{report.text(kept.run)}\n\n{kept.path}")
    statuses = (record["status"] for record in kept.run["steps"].values())
    return 0 if all(status in ("passed", "unavailable") for status in statuses) else 1


def together(names: Sequence[str]) -> list[list[str]]:
    """Steps in order; those that time nothing run side by side."""
    found: list[list[str]] = []
    for name in names:
        if found and {name, *found[-1]} <= TOGETHER:
            found[-1].append(name)
        else:
            found.append([name])
    return found


def run_step(name: str, context: Context, kept: Kept, left_s: float) -> None:
    """Runs a step within its limit and the time that is left; the file follows what it has."""
    step, most_s = STEPS[name]
    limit, start = min(most_s, left_s), time.monotonic()

    def keep(record: Record) -> None:
        kept.put(name, {"status": "running", "detail": "not done", **record}, time.monotonic() - start)

    print(f"== {name}, at most {max(limit, 0):.0f} s", flush=True)
    if limit <= 1:
        return keep({"status": "not run", "detail": "time was up"})
    keep({})
    return keep(step(replace(context, keep=keep), limit))


def end_at_once(kept: Kept, minutes: float | None) -> None:
    """Ends the command and everything it started; the file has what was measured."""
    processes.kill_all()
    why = "terminated" if minutes is None else f"{minutes:g} minutes are over"
    print(f"make gpu: {why}; what was measured so far: {kept.path}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
