"""Measures ops one after another and keeps what it has after each: `python -m bench.gpu.measure`.

A process of its own: an op that takes the device down takes only this process with it, and the caller starts
another for the rest (`bench.gpu.steps`).
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import cases
from bench.gpu import tune
from bench.gpu.launches import TABLE, Choice
from bench.gpu.steps import DONE, JOB
from bench.harness.case import COMPILED, Case, name_of
from bench.harness.device import Device
from bench.harness.models import LLAMA, MODELS
from bench.harness.run import error_of, run_case
from bench.output.results import write
from elastic.ops import _extension

BF16, F32 = torch.bfloat16, torch.float32
NO_RESULTS: dict[str, Any] = {
    **{key: [] for key in ("done", "results", "errors", "skipped", "tuning")},
    "bytes_per_ms": None,
}
MODEL_ROUNDS = 3  # of whole models, whose calls take seconds
COPY = "copy"


def jobs(kind: str, tiny: bool) -> dict[str, Callable[[Device], Case]]:
    """Makers of the cases of `bench` or `models` by name, in the order they run; `tiny` to try them."""
    sizes = cases.tiny(cases.GPU) if tiny else cases.GPU
    listed = cases.ops(sizes) if kind == "bench" else cases.whole_models(sizes)
    return {entry.name: entry.make for entry in [cases.copy(sizes), *listed]}


def tune_jobs(tiny: bool) -> dict[str, tuple[int, int, torch.dtype, list[tune.Launch]]]:
    """Tokens, vocabulary, dtype and launches of each sweep by name; the ring's, which may hang, come last."""
    if tiny:
        return {"301 float32": (8, 301, F32, tune.PASSES), "301 float32 ring": (8, 301, F32, tune.RINGS)}
    sizes = [
        (v, dtype, n) for v in (cases.V, MODELS[LLAMA].vocab) for dtype, n in ((BF16, 4096), (F32, 2048))
    ]
    passes = {f"{v} {name_of(dtype)}": (n, v, dtype, tune.PASSES) for v, dtype, n in sizes}
    return passes | {f"{v} {name_of(dtype)} ring": (n, v, dtype, tune.RINGS) for v, dtype, n in sizes}


def set_logits_launch() -> tune.SetLaunch | None:
    return getattr(_extension.load_extension(), "set_logits_launch", None)


def shape_of_table(choice: Choice) -> str:
    """What the table gives rows of this size."""
    shape = _extension.load_extension().logits_launch(choice.dtype, choice.vocab, choice.op == "grpo_loss")
    if shape["kernel"] != "pass":
        return (
            f"{shape['kernel']}, cluster {shape['cluster']}, {shape['slots']} x {shape['slot_bytes']} bytes"
        )
    return f"cluster {shape['cluster'] if shape['resident'] else 0}, {shape['threads']} threads"


def names(kind: str, tiny: bool) -> list[str]:
    return list(tune_jobs(tiny) if kind == "tune" else jobs(kind, tiny))


def measure_one(
    kind: str,
    name: str,
    device: Device,
    rounds: int,
    tiny: bool,
    kept: dict[str, Any],
    until: float = math.inf,
) -> bool:
    """Adds what one job gave to `kept`; returns whether the device survived it.

    Args:
        until: when `time.monotonic()` is there, all should be done.
    """
    if kind == "tune":
        set_launch = set_logits_launch()
        if set_launch is None:
            raise RuntimeError("elastic._C has no set_logits_launch: the launch cannot be chosen")
        tokens, vocab, dtype, launches = tune_jobs(tiny)[name]
        found = tune.sweep(device, set_launch, tokens, vocab, dtype, rounds, launches)
        for choice in found:
            if choice.launch == TABLE and choice.median_ms is not None:
                choice.why = shape_of_table(choice)
        kept["tuning"] += [asdict(choice) for choice in found]
        return True
    case = jobs(kind, tiny)[name](device)
    if tiny:
        case = case.without(COMPILED)
    if kind == "models" and name != COPY:
        outcome = run_case(case, device, few_rounds(rounds, until), kept["bytes_per_ms"], until=until)
    else:
        outcome = run_case(case, device, rounds, kept["bytes_per_ms"], again=rounds, until=until)
    for note in outcome.skipped:
        print(f"  skipped: {note['variant']}: {note['why']}", flush=True)
    if name == COPY and outcome.rows:
        kept["bytes_per_ms"] = max(row["bytes"] / row["median_ms"] for row in outcome.rows)
        for row in outcome.rows:
            row["ceiling_share"] = row["bytes"] / row["median_ms"] / kept["bytes_per_ms"]
    if name != COPY or kind == "bench":  # `models` measures the ceiling again, in its own process
        kept["results"] += outcome.rows
    kept["errors"] += outcome.errors
    kept["skipped"] += outcome.skipped
    return not outcome.device_lost


def few_rounds(rounds: int, until: float) -> Callable[[float], int]:
    """Given the seconds that a round takes: as many as there is time for, and one in any case."""

    def count(round_s: float) -> int:
        fit = (until - time.monotonic()) / max(round_s, 1e-6)
        return max(1, int(min(rounds, MODEL_ROUNDS, fit)))

    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bench", "models", "tune"))
    parser.add_argument("--list", action="store_true", help="print the names of the jobs and leave")
    parser.add_argument("--only", nargs="+", default=[], help="names of jobs")
    parser.add_argument("--out", type=Path, help="JSON, extended after each job")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=math.inf, help="that there are")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    if args.list:
        print("\n".join(f"{JOB}{name}" for name in names(args.kind, args.tiny)))
        return
    if args.out is None:
        parser.error("--out is needed")
    device = Device(args.device)
    kept = json.loads(args.out.read_text()) if args.out.exists() else NO_RESULTS
    for name in args.only:
        print(f"{args.kind}: {name}", flush=True)
        alive = True
        # Making a job allocates and computes inputs, which may fail, too; see `run_case`.
        try:
            alive = measure_one(args.kind, name, device, args.rounds, args.tiny, kept, until)
        except Exception as error:
            kept["errors"].append(error_of(Case(args.kind, name, "", []), "all", error))
            alive = not device.lost()
        kept["done"].append(name)
        write(args.out, kept)
        print(f"{DONE}{name}", flush=True)
        torch.compiler.reset()  # what was compiled may hold on to models and caches
        device.release()
        if not alive:
            raise SystemExit(f"{args.kind}: {name}: the device was lost")


if __name__ == "__main__":
    main()
