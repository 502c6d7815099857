"""The flags of ``python -m elastic.commands.replicate --out DIR``."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from elastic.commands.replicate.config import ReplicateConfig
from elastic.commands.replicate.story import run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m elastic.commands.replicate", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="working directory; goes on with what is in it"
    )
    parser.add_argument("--results", type=Path, help="another directory for a copy of the results")
    parser.add_argument("--page", type=Path, help="a page whose claims and tables are replaced")
    parser.add_argument("--seeds", type=int, help="trainings of every method")
    parser.add_argument("--base", help="directory of another base over the embedded model's vocabulary")
    parser.add_argument("--device", help="where to train and evaluate, as in [model] of a training")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="runs everything in seconds and shows nothing")
    size.add_argument("--harder", action="store_true", help="a harder instance: half the solution budget")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ("seeds", "base", "device")}
    changes = {name: value for name, value in given.items() if value is not None}
    build: Callable[..., ReplicateConfig] = ReplicateConfig
    if options.quick or options.harder:
        build = ReplicateConfig.quick if options.quick else ReplicateConfig.harder
    run(build(**changes), options.out, results=options.results, page=options.page)
