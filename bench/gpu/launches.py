"""Launches of the row kernels, as a tuning sweep found them. Pure: it is read before anything is built."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

TABLE = (-1, 0, "table")  # cluster, threads and kernel that leave the choice to csrc/cuda/logits_launch.cu
WORTH = 0.98  # of the table's own time: a launch that takes longer is not worth an entry
OTHER_BITS = "other bits"  # than the table's, against the contract of docs/kernels.md: never an entry
Found = dict[str, object]


@dataclass
class Choice:
    """One launch of one op on rows of one size.

    Attributes:
        median_ms: None where rows of that size do not fit; `why` then says so.
        kernel: "table" with a cluster size is the logits pass; "ring", "ring_direct".
        capability: the device's, major; 0 on a CPU.
    """

    op: str
    dtype: str
    vocab: int
    cluster: int
    threads: int
    median_ms: float | None
    why: str = ""
    kernel: str = "table"
    capability: int = 0

    @property
    def launch(self) -> tuple[int, int, str]:
        return self.cluster, self.threads, self.kernel


def best(choices: Sequence[Choice]) -> list[Found]:
    """The fastest launch of each op, dtype and vocabulary, and what the table's own took."""
    groups: dict[tuple[str, str, int], list[Choice]] = {}
    for choice in choices:
        groups.setdefault((choice.op, choice.dtype, choice.vocab), []).append(choice)
    found = []
    for group in groups.values():
        timed = [c for c in group if c.median_ms is not None and c.why != OTHER_BITS]
        table = [c.median_ms or 0.0 for c in timed if c.launch == TABLE]
        chosen = [c for c in timed if c.launch != TABLE]
        if chosen:
            fastest = min(chosen, key=lambda c: c.median_ms or 0.0)
            found.append({**asdict(fastest), "table_ms": min(table, default=None)})
    return found


def lines(found: Sequence[Found]) -> str:
    """Launches as entries of csrc/cuda/logits_table.h, with their times as comments.

    An entry holds for vocabularies from 3/4 to 5/4 of the measured one; the nearer has those of two.
    """
    scalars = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    kernels = {"table": "PASS", "ring": "RING", "ring_direct": "RING_DIRECT"}
    text = []
    for c in found:
        vocab = int(str(c["vocab"]))
        alike = sorted(int(str(o["vocab"])) for o in found if (o["op"], o["dtype"]) == (c["op"], c["dtype"]))
        below = [v for v in alike if v < vocab]
        above = [v for v in alike if v > vocab]
        begin = max(vocab * 3 // 4, (below[-1] + vocab) // 2 if below else 0)
        end = min(vocab * 5 // 4, (above[0] + vocab) // 2) if above else vocab * 5 // 4
        table = f", the table's own {c['table_ms']:.3f} ms" if c["table_ms"] is not None else ""
        text.append(
            f"    {{{c['capability']}, Scalar::{scalars[str(c['dtype'])]}, {begin}, {end}, "
            f"{str(c['op'] == 'grpo_loss').lower()}, LogitsKernel::{kernels[str(c['kernel'])]}, "
            f"{c['cluster']}, {c['threads']}}},  // {c['op']}: {c['median_ms']:.3f} ms{table}"
        )
    return "\n".join(text)


def worthwhile(found: Sequence[Found]) -> list[Found]:
    """Those that are faster than the table's own choice by more than a measurement's noise."""
    return [
        c for c in found if c["table_ms"] and float(str(c["median_ms"])) < WORTH * float(str(c["table_ms"]))
    ]


def header(before: str, found: Sequence[Found]) -> str:
    """csrc/cuda/logits_table.h with `found` for its entries; `before` is the file as it is.

    Raises:
        ValueError: `before` has no table.
    """
    opening = "inline constexpr std::array<MeasuredLaunch, "
    head, mark, rest = before.partition(opening)
    _, end, tail = rest.partition("};")
    if not (mark and end):
        raise ValueError(f"logits_table.h: expected a line that begins with {opening!r}")
    entries = f"{{{{\n{lines(found)}\n}}}};" if found else "{};"
    return f"{head}{opening}{len(found)}> MEASURED = {entries}{tail}"
