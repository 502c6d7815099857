"""Reads runs that `python -m bench --json` kept: `python -m bench.report FILE [OTHER ...]`.

One file: its tables and how time and memory grow. Several: their ratios beside each other, those that differ
by more than 20 % flagged; exits with 1 where there are such.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.output import agreement, bars, markdown, plot, scaling, tables
from bench.output.results import read
from elastic.data.files import write_atomic


def text(run: tables.Row) -> str:
    """A run as it was printed when it was measured, with the exponents of its curves."""
    threads = max((row["threads"] for row in run["results"]), default=1)
    parts = [tables.heading(run, threads)]
    parts += [tables.block(rows, [], []) for rows in tables.cases(run["results"]) if not rows[0]["axis"]]
    parts += ["", scaling.table(run["results"])]
    parts.append(tables.block([], run["errors"], run.get("skipped", [])))
    parts.append(tables.summary(run["results"]))
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, nargs="?", help="default: the newest of bench/results")
    parser.add_argument("others", type=Path, nargs="*", help="runs to compare with")
    parser.add_argument("--plot", type=Path, metavar="PICTURE", help="write the picture, png or svg")
    parser.add_argument("--bars", type=Path, metavar="PICTURE", help="write README's picture, a png")
    parser.add_argument("--markdown", action="store_true", help="write docs/benchmarks.md, README.md")
    args = parser.parse_args(arguments)
    path = args.file or markdown.committed()
    if path is None:
        parser.error("no file given, and bench/results holds no run of a CPU")
    if args.others:
        compared, flagged = agreement.text([read(path), *map(read, args.others)])
        print(compared)
        return 1 if flagged else 0
    run = read(path)
    print(text(run))
    if args.plot:
        plot.save(run, args.plot)
    on_gpu = bool(run["machine"].get("driver"))
    cpu, gpu = (markdown.committed(), path) if on_gpu else (path, markdown.committed("gpu"))
    if args.bars:
        bars.save([read(each) for each in (cpu, gpu) if each], args.bars)
    if args.markdown:
        for page, text_of_page in markdown.pages(cpu, gpu).items():
            write_atomic(page, text_of_page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
