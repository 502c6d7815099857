"""Measures ops one after another and keeps what it has after each: `python -m bench.gpu.measure`.

A process of its own: an op that takes the device down takes only this process with it, and the caller starts
another for the rest (`bench.gpu.steps`).
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.gpu import tune
from bench.gpu.launches import TABLE, Choice
from bench.gpu.steps import DONE, JOB
from bench.harness.case import COMPILED, Case, Variant, error_of, name_of, nbytes, run_case
from bench.harness.device import Device
from bench.harness.models import LLAMA, MODELS, QWEN
from bench.ops import budget_step, force_logits, grpo_loss, linear_grpo_loss, sample, token_logprobs
from bench.output.results import write
from elastic.ops import _extension

BF16, F32 = torch.bfloat16, torch.float32
V = MODELS[QWEN].vocab
CHUNKS = (2048, 4096, 8192)
NO_RESULTS: dict[str, Any] = {"done": [], "results": [], "errors": [], "tuning": [], "bytes_per_ms": None}


def bench_cases(tiny: bool) -> dict[str, Callable[[Device], Case]]:
    """Makers of the cases by name, in the order they run; `tiny` ones drive the code on a CPU."""
    n, half, v = (16, 8, 301) if tiny else (8192, 2048, V)
    rows, linear = (4, (16, 8, 61)) if tiny else (256, (16_384, MODELS[QWEN].hidden, V))
    low = F32 if tiny else BF16
    return {
        "copy": lambda d: copy_case(d, n, v, low),
        "grpo_loss bfloat16": lambda d: grpo_loss.case(d, n, v, low),
        "grpo_loss float32": lambda d: grpo_loss.case(d, half, v, F32),
        "token_logprobs bfloat16": lambda d: token_logprobs.case(d, n, v, low),
        "token_logprobs float32": lambda d: token_logprobs.case(d, half, v, F32),
        "budget_step_": lambda d: budget_step.case(d, rows),
        "force_logits_ bfloat16": lambda d: force_logits.case(d, rows, v, low),
        "linear_grpo_loss": lambda d: linear_grpo_loss.case(d, *linear, low, chunks=CHUNKS),
        "sample bfloat16": lambda d: sample.case(d, rows, v, low),
        "sample float32": lambda d: sample.case(d, rows, v, F32),
        "sample float32 top_p": lambda d: sample.case(d, rows, v, F32, 0.95),
    }


def copy_case(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Case:
    """What the device's memory gives: bytes read and written by a copy, and in place."""
    source = torch.randn(tokens, vocab, dtype=dtype, device=device.torch)
    target = source.clone()
    variants = [
        Variant("device to device", lambda: lambda _: target.copy_(source)),
        Variant("read + write in place", lambda: lambda _: target.neg_()),
    ]
    return Case("copy", f"N={tokens} V={vocab}", name_of(dtype), variants, bytes=2 * nbytes(source))


def tune_jobs(tiny: bool) -> dict[str, tuple[int, int, torch.dtype]]:
    """Tokens, vocabulary and dtype of each sweep by name."""
    if tiny:
        return {"301 float32": (8, 301, F32)}
    sizes = {BF16: 4096, F32: 2048}
    return {
        f"{v} {name_of(dtype)}": (n, v, dtype) for v in (V, MODELS[LLAMA].vocab) for dtype, n in sizes.items()
    }


def set_logits_launch() -> tune.SetLaunch | None:
    return getattr(_extension.load_extension(), "set_logits_launch", None)


def shape_of_table(choice: Choice) -> str:
    """What the table gives rows of this size."""
    shape = _extension.load_extension().logits_launch(choice.dtype, choice.vocab, choice.op == "grpo_loss")
    return f"cluster {shape['cluster'] if shape['resident'] else 0}, {shape['threads']} threads"


def names(kind: str, tiny: bool) -> list[str]:
    return list(bench_cases(tiny) if kind == "bench" else tune_jobs(tiny))


def measure_one(kind: str, name: str, device: Device, rounds: int, tiny: bool, kept: dict[str, Any]) -> bool:
    """Adds what one job gave to `kept`; returns whether the device survived it."""
    if kind == "tune":
        set_launch = set_logits_launch()
        if set_launch is None:
            raise RuntimeError("elastic._C has no set_logits_launch: the launch cannot be chosen")
        tokens, vocab, dtype = tune_jobs(tiny)[name]
        found = tune.sweep(device, set_launch, tokens, vocab, dtype, rounds)
        for choice in found:
            if (choice.cluster, choice.threads) == TABLE and choice.median_ms is not None:
                choice.why = shape_of_table(choice)
        kept["tuning"] += [asdict(choice) for choice in found]
        return True
    case = bench_cases(tiny)[name](device)
    if tiny:
        case = case.without(COMPILED)
    outcome = run_case(case, device, rounds, kept["bytes_per_ms"], again=rounds)
    for note in outcome.skipped:
        print(f"  skipped: {note['variant']}: {note['why']}", flush=True)
    if name == "copy" and outcome.rows:
        kept["bytes_per_ms"] = max(row["bytes"] / row["median_ms"] for row in outcome.rows)
        for row in outcome.rows:
            row["ceiling_share"] = row["bytes"] / row["median_ms"] / kept["bytes_per_ms"]
    kept["results"] += outcome.rows
    kept["errors"] += outcome.errors
    return not outcome.device_lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bench", "tune"))
    parser.add_argument("--list", action="store_true", help="print the names of the jobs and leave")
    parser.add_argument("--only", nargs="+", default=[], help="names of jobs")
    parser.add_argument("--out", type=Path, help="JSON, extended after each job")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
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
            alive = measure_one(args.kind, name, device, args.rounds, args.tiny, kept)
        except Exception as error:
            kept["errors"].append(error_of(Case(args.kind, name, "", []), "all", error))
            alive = not device.lost()
        kept["done"].append(name)
        write(args.out, kept)
        print(f"{DONE}{name}", flush=True)
        device.release()
        if not alive:
            raise SystemExit(f"{args.kind}: {name}: the device was lost")


if __name__ == "__main__":
    main()
