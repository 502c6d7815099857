"""One measurement in a process of its own: `python -m bench.training_vs_trl.child JSON`.

The argument is an object with `part`, `way`, `size`, `threads`, `out` and, of a training, `seed`, of an
update, `weights`. The result goes to the file `out`: others print on stdout.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from bench.training_vs_trl import trainings, updates


def main(text: str) -> None:
    job: dict[str, Any] = json.loads(text)
    torch.set_num_threads(job["threads"])
    if job["part"] == "training":
        found = trainings.measure(job["way"], job["seed"], trainings.Size(**job["size"]))
    else:
        found = updates.measure(job["way"], updates.Size(**job["size"]), Path(job["weights"]))
    Path(job["out"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
