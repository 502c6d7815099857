"""Launches of the row kernels, as a tuning sweep found them. Pure: it is read before anything is built."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

TABLE = (-1, 0)  # cluster and threads that leave the choice to csrc/cuda/logits_launch.cu


@dataclass
class Choice:
    """One launch of one op on rows of one size.

    Attributes:
        median_ms: None where rows of that size do not fit; `why` then says so.
    """

    op: str
    dtype: str
    vocab: int
    cluster: int
    threads: int
    median_ms: float | None
    why: str = ""


def best(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """The fastest launch of each op, dtype and vocabulary, and what the table's own took."""
    groups: dict[tuple[str, str, int], list[Choice]] = {}
    for choice in choices:
        groups.setdefault((choice.op, choice.dtype, choice.vocab), []).append(choice)
    found = []
    for group in groups.values():
        timed = [c for c in group if c.median_ms is not None]
        table = [c for c in timed if (c.cluster, c.threads) == TABLE]
        chosen = [c for c in timed if (c.cluster, c.threads) != TABLE]
        if chosen:
            fastest = min(chosen, key=lambda c: c.median_ms or 0.0)
            found.append({**asdict(fastest), "table_ms": table[0].median_ms if table else None})
    return found


def lines(found: Sequence[dict[str, object]]) -> str:
    """The chosen launches as entries of a table in C++, with their times as comments."""
    scalars = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    return "\n".join(
        f"    {{Scalar::{scalars[str(c['dtype'])]}, {c['vocab']}, {str(c['op'] == 'grpo_loss').lower()}, "
        f"{c['cluster']}, {c['threads']}}},  // {c['op']}: {c['median_ms']:.3f} ms"
        + (f", the table's own {c['table_ms']:.3f} ms" if c["table_ms"] is not None else "")
        for c in found
    )
