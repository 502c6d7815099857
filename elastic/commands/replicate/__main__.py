"""The command line: ``python -m elastic.commands.replicate --out DIR``."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
    from elastic.commands.replicate import ReplicateConfig, run

    parser = argparse.ArgumentParser(prog="python -m elastic.commands.replicate", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="working directory; goes on with what is in it"
    )
    parser.add_argument("--results", type=Path, help="another directory for a copy of the results")
    parser.add_argument("--seeds", type=int, help="trainings of every method")
    parser.add_argument("--base", help="directory of another base over the embedded model's vocabulary")
    parser.add_argument("--device", help="where to train and evaluate, as in [model] of a training")
    parser.add_argument("--quick", action="store_true", help="runs everything in seconds and shows nothing")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ("seeds", "base", "device")}
    changes = {name: value for name, value in given.items() if value is not None}
    config = ReplicateConfig.quick(**changes) if options.quick else ReplicateConfig(**changes)
    run(config, options.out, results=options.results)


if __name__ == "__main__":
    main()
