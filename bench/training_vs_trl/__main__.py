"""GRPO by elastic and by TRL: rewards, seconds a step, peak memory; then one update on the same rollouts.

Every measurement is a process of its own; the ways take turns. Exits with 1 where updates on the same
rollouts lead to other weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

MOST_APART = 1e-3  # of the update: float32, summed in another order


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.training_vs_trl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each way")
    parser.add_argument("--steps", type=int, default=20, help="of a training")
    parser.add_argument("--rounds", type=int, default=3, help="of the update")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the command itself")
    parser.add_argument("--json", type=Path, help="file, or folder for a file named after the machine")
    parser.add_argument("--write", action="store_true", help="write docs/trl.md from the newest kept run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    from bench.training_vs_trl import page

    if args.write:
        page.write()
        return 0
    import torch

    from bench.output.results import facts, slug, write

    device = torch.device("cpu")
    run: dict[str, Any] = {**facts(device), "threads": args.threads, **measured(args)}
    print(page.text(run))
    if args.json is not None:
        machine = run["machine"]
        name = slug("training vs trl cpu", machine["device"], f"{machine['cores']} cores", run["date"])
        path = args.json if args.json.suffix else args.json / f"{name}.json"
        write(path, run)
        print(path)
    return 1 if any(row["apart"] > MOST_APART * row["step"] for row in run["weights"]) else 0


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Rows of both parts, their sizes, and how far the updated weights are apart."""
    import torch

    from bench.harness import random_models
    from bench.training_vs_trl import trainings, updates

    training = trainings.Size(steps=args.steps)
    update = updates.Size()
    if args.tiny:
        training = trainings.Size(args.steps, prompts=2, samples=4, problems=16, tested=8)
        update = updates.Size(model="micro", prompt=4, lengths=(3, 9), calls=1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for way in trainings.WAYS:
                job = {"part": "training", "way": way, "size": asdict(training), "seed": seed}
                rows.append(child(job, args.threads, Path(folder)))
        paths = {way: Path(folder) / f"{number}.pt" for number, way in enumerate(updates.WAYS)}
        for _ in range(args.rounds):
            for way, path in paths.items():
                job = {"part": "update", "way": way, "size": asdict(update), "weights": str(path)}
                rows.append(child(job, args.threads, Path(folder)))
        after = {way: torch.load(path) for way, path in paths.items()}
        before = [weight.detach() for weight in random_models.build(update.model).parameters()]
        first, *others = after
        apart = {way: updates.differences(before, after[first], after[way]) for way in others}
    weights = [{"way": way, "apart": found, "step": step} for way, (found, step) in apart.items()]
    sizes = {"training": asdict(training), "update": asdict(update)}
    return {"sizes": sizes, "results": rows, "weights": weights}


def child(job: dict[str, Any], threads: int, folder: Path) -> dict[str, Any]:
    """Runs a job and gives its row; RuntimeError with what it printed where it failed."""
    out = folder / "out.json"
    text = json.dumps({**job, "threads": threads, "out": str(out)})
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "bench.training_vs_trl.child", text]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{job['part']}, {job['way']}: {done.stderr[-3000:]}")
    row = {name: job[name] for name in ("part", "way", "seed") if name in job}
    print(f"{job['part']}, {job['way']}: done", file=sys.stderr, flush=True)
    return {**row, **json.loads(out.read_text())}


if __name__ == "__main__":
    sys.exit(main())
