"""What `make gpu` prints: the steps, the measured figures beside their targets, the launches to take over."""

from collections.abc import Sequence
from typing import Any

from bench.gpu.launches import TABLE, Choice, best, lines
from bench.ops.sample_kinds import FILTERS, KINDS
from bench.output import decode
from bench.output.tables import cell, table

# Milliseconds on an H200, by op, start of the shape, dtype and variant: the target, and the floor it was set
# from: bytes at 4.3 TB/s, or matrix products at 790 TFLOP/s.
TARGETS = {
    ("budget_step_", "B=256", "int32", "elastic, one launch"): (0.003, 0.002),
    ("budget_step_", "B=256", "int32", "elastic, graph node"): (0.003, 0.001),
    ("sample", "B=256 V=151936", "bfloat16", "elastic"): (0.05, 0.0181),
    ("sample", "B=256 V=151936", "float32", "elastic"): (0.06, 0.0362),
    ("sample", "B=256 V=151936 top_p=0.95", "float32", "elastic"): (0.13, 0.0362),
    **{
        ("sample", f"B=256 V=151936 {kind}", dtype, f"elastic{name}"): (
            0.18 if "and" in name else 0.13,
            floor,
        )
        for kind in KINDS
        for dtype, floor in (("bfloat16", 0.0181), ("float32", 0.0362))
        for name in FILTERS
        if name
    },
    ("grpo_loss", "N=8192 V=151936", "bfloat16", "elastic, in place"): (1.30, 1.158),
    ("grpo_loss", "N=2048 V=151936", "float32", "elastic, in place"): (0.650, 0.579),
    ("token_logprobs", "N=8192 V=151936", "bfloat16", "elastic"): (0.650, 0.579),
    ("token_logprobs", "N=2048 V=151936", "float32", "elastic"): (0.325, 0.2895),
    ("linear_grpo_loss", "N=16384 H=1536 V=151936", "bfloat16", "elastic"): (31.0, 29.0),
    # A step; set from prototypes with flash-attn's kernel for caches.
    ("decode", "1.5B B=64 columns=1024", "bfloat16", "elastic flash, compiled"): (3.2, 0.98),
    ("decode", "1.5B B=256 columns=1024", "bfloat16", "elastic flash, compiled"): (5.2, 1.75),
    ("decode", "1.5B B=1 columns=1024", "bfloat16", "elastic flash, captured"): (1.6, 0.73),
}


def bench_table(results: Sequence[dict[str, Any]]) -> str:
    """A row a variant; targets are those of an H200, and `over` is by how much a figure misses its target."""
    head = (
        "op",
        "shape",
        "dtype",
        "variant",
        "ms",
        "IQR",
        "x eager",
        "ceiling",
        "peak MB",
        "floor",
        "target",
        "over",
        "outside",
    )
    rows = []
    for r in results:
        target, floor = TARGETS.get((r["op"], r["shape"], r["dtype"], r["variant"]), (None, None))
        over = None if target is None else r["median_ms"] / target - 1
        peak = None if r["peak_bytes"] is None else r["peak_bytes"] / 1e6
        rows.append(
            (
                r["op"],
                r["shape"],
                r["dtype"],
                r["variant"],
                f"{r['median_ms']:.4f}",
                f"{r['iqr_ms']:.4f}",
                cell(r["ratio_to_eager"], ".2f"),
                cell(r["ceiling_share"], ".0%"),
                cell(peak, ".0f"),
                cell(floor, ".4g"),
                cell(target, ".4g"),
                cell(over, "+.0%"),
                cell(r.get("outside"), ".0%"),
            )
        )
    return table(head, rows)


def ceiling_line(results: Sequence[dict[str, Any]]) -> str:
    """The measured ceiling of memory traffic, which shares refer to."""
    rates = [r["bytes"] / r["median_ms"] / 1e9 for r in results if r["op"] == "copy"]
    return f"ceiling: {max(rates):.2f} TB/s of bytes read and written" if rates else "ceiling: not measured"


def shown(choice: Choice) -> str:
    """A launch's kernel and cluster size."""
    ring = "" if choice.kernel == "table" else f"{choice.kernel} "
    return ring + ("streamed" if choice.cluster == 0 else str(choice.cluster))


def tuning_text(tuning: Sequence[dict[str, Any]]) -> str:
    """Every launch, the fastest of each op and size, and lines for a table in C++."""
    choices = [Choice(**entry) for entry in tuning]
    fastest = best(choices)
    rows = [
        (
            c.op,
            c.dtype,
            str(c.vocab),
            "table" if c.launch == TABLE else shown(c),
            str(c.threads or "-"),
            cell(c.median_ms, ".4f"),
            c.why,
        )
        for c in choices
    ]
    head = ("op", "dtype", "V", "cluster", "threads", "ms", "")
    return f"{table(head, rows)}\n\nfastest:\n{lines(fastest)}"


def step_table(steps: dict[str, dict[str, Any]]) -> str:
    rows = [
        (name, step["status"], f"{step.get('seconds', 0):.0f}", step["detail"][:150])
        for name, step in steps.items()
    ]
    return table(("step", "result", "s", ""), rows)


def text(run: dict[str, Any]) -> str:
    """The whole report of a run."""
    parts = []
    if run["tuning"]:
        parts.append(tuning_text(run["tuning"]))
    if run["results"]:
        parts += [ceiling_line(run["results"]), bench_table(run["results"])]
        parts += ["\n".join(decode.lines(run["results"]))]
    for note in run["skipped"]:
        parts.append(f"skipped {note['op']} {note['shape']}, {note['variant']}: {note['why']}")
    for error in run["errors"]:
        parts.append(
            f"FAILED {error['op']} {error.get('shape', '')} {error.get('dtype', '')}, {error['variant']}: "
            f"{error['error']}"
        )
    return "\n\n".join([*parts, step_table(run["steps"])])
