"""Decode steps of a whole model in words: what of the bound they reach, and what they should."""

from collections.abc import Sequence

from bench.output.tables import Row, cases, cell

LEAST_SPEED, MOST_OUTSIDE = 8.0, 0.10  # of a decode step of 64 rows: times `generate`, share not the model's


def lines(results: Sequence[Row]) -> list[str]:
    """Our fastest step of each shape."""
    found = []
    for rows in cases([row for row in results if row["op"] == "decode"]):
        ours = [row for row in rows if row["kind"] == "ours"]
        if not ours:
            continue
        row = min(ours, key=lambda row: row["median_ms"])
        aims = f" (aim: at least {LEAST_SPEED:g})", f" (aim: at most {MOST_OUTSIDE:.0%})"
        speed, share = aims if row["items"] == 64 else ("", "")
        parts = [
            f"{row['median_ms']:.3f} ms",
            f"{row['items'] / row['median_ms'] * 1e3:,.0f} tok/s",
            f"{cell(row['ceiling_share'], '.0%')} of the bound",
            f"{cell(row['ratio_to_eager'], '.1f')} x generate{speed}",
            f"{cell(row.get('outside'), '.0%')} outside the model{share}",
        ]
        found.append(f"decode {row['shape']}, {row['variant']}: {', '.join(parts)}")
    return found
