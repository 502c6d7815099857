"""Where a decode step of `RolloutEngine` spends its time: `python -m bench.decode_step`.

The embedded model, B rows in flight, one thread, budgets of equal length. CPU time of the process,
taken around the step's parts. The mean also has what happens in a few steps only: rows that end, compaction,
moving the log to the record. The bound is what a step must read, the weights and the keys and values that are
there, at the rate at which as many bytes as the weights are read and written.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

import elastic.models.tiny
from bench.harness.case import ceiling
from bench.harness.compare import Timed, compare
from bench.harness.device import Device
from bench.ops.traffic import step_bytes, weight_bytes
from elastic import Budget, RolloutEngine, Sampling, ops
from elastic.rollout import decode
from elastic.rollout.step import stepper
from elastic.rollout.step.poll import Poll

# Part of a step -> the function it is, as a place to patch.
PARTS: list[tuple[str, Any, str]] = [
    ("`ops.sample`", ops, "sample"),
    ("log", decode, "emit"),  # the rest of it
    ("mask, positions, copy of the logits", stepper, "forward"),  # the rest of it
    ("poll", Poll, "look"),
]

LOOP = "loop: schedule, compaction, moving the log"
STEP, BOUND = "a step", "bound"
COPIES = 31


class Clock:
    """CPU time of nested parts, each without the parts inside it."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._inside: list[float] = []

    def wrap(self, name: str, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            begin = time.process_time()
            result = function(*args, **kwargs)
            spent = time.process_time() - begin
            inside = self._inside.pop()
            self.parts[name] = self.parts.get(name, 0.0) + spent - inside
            if self._inside:
                self._inside[-1] += spent
            return result

        return timed


@contextmanager
def watched(model: Any, steps: list[dict[str, float]]) -> Iterator[None]:
    """Appends the milliseconds of every step's parts to `steps`; prefill comes before the first."""
    clock = Clock()
    last: float | None = None
    emit = decode.emit

    def at_step_begin(*args: Any, **kwargs: Any) -> None:
        nonlocal last
        now = time.process_time()
        if last is not None:
            parts = {name: 1e3 * spent for name, spent in clock.parts.items()}
            steps.append({**parts, LOOP: 1e3 * (now - last) - sum(parts.values())})
        clock.parts.clear()
        last = time.process_time()
        timed_emit(*args, **kwargs)

    timed_emit = clock.wrap("log", emit)
    with ExitStack() as stack:
        for name, place, attribute in PARTS:
            new = at_step_begin if attribute == "emit" else clock.wrap(name, getattr(place, attribute))
            stack.enter_context(mock.patch.object(place, attribute, new))
        stack.enter_context(mock.patch.object(model, "forward", clock.wrap("model", model.forward)))
        yield


def measure(rows: int, runs: int) -> tuple[str, float]:
    """The table, and a step's milliseconds of CPU time, the median."""
    model, tokenizer = elastic.models.tiny.load()
    engine = RolloutEngine(model, tokenizer, max_rows=rows, progress=False)
    prompts = [problem.prompt for problem in elastic.models.tiny.problems(rows)]
    steps: list[dict[str, float]] = []
    for run in range(runs):
        with watched(model, steps):
            batch = engine.generate(prompts, Budget(24, 8), sampling=Sampling(temperature=1.0, seed=run))
    columns = round((batch.lengths.double() / 2).mean().item() + statistics.fmean(map(len, batch.prompts)))
    names = ["model", *(name for name, _, _ in PARTS), LOOP]
    steps = [step for step in steps if set(step) >= {*names}]
    middle = {name: statistics.median(step[name] for step in steps) for name in names}
    mean = {name: statistics.fmean(step[name] for step in steps) for name in names}
    totals = sum(middle.values()), sum(mean.values())
    middle["outside the model"] = totals[0] - middle["model"]
    mean["outside the model"] = totals[1] - mean["model"]
    middle[STEP], mean[STEP] = totals
    middle[BOUND] = mean[BOUND] = step_bytes(model, rows, columns) / read_and_write(weight_bytes(model))
    lines = ["| part of a step | median CPU ms | share | mean CPU ms | share |", "|---|---|---|---|---|"]
    for name in middle:
        a, b = middle[name], mean[name]
        lines.append(
            f"| {name} | {a:.3f} | {100 * a / totals[0]:.1f} % | {b:.3f} | {100 * b / totals[1]:.1f} % |"
        )
    return "\n".join(lines), totals[0]


def read_and_write(size: int) -> float:
    """Bytes a millisecond, read and written, of memory that holds so many."""
    device = Device("cpu")
    variant = ceiling(device, torch.zeros(size // 4))
    timing = compare([Timed(variant.name, variant.make())], COPIES, clock=device.clock)[variant.name]
    return (variant.bytes or 0) / timing.median_ms()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {args.rows} rows, one thread, {args.runs} runs")
    table, step_ms = measure(args.rows, args.runs)
    print(table)
    print(f"{args.rows / step_ms * 1e3:,.0f} tokens a second of CPU time while every row goes on")


if __name__ == "__main__":
    main()
