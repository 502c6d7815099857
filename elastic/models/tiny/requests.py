"""A base for L1 that reads requests for a length: ``python -m elastic.models.tiny.requests --out DIR``.

The committed checkpoint never saw a prompt with ``so : 4 0`` in it (`elastic.data.sums.ask`) and answers a
good part of such prompts wrongly. Further pretraining, in which part of the prompts ask for a number of
tokens that has nothing to do with the thought behind them, gives a base for L1 that answers them as it
answers the others, and thinks as long. A base that obeyed would leave L1 nothing to learn.

With the default arguments, on 256 validation problems at temperature 1: 96 to 97 % right with and without a
request and 80 tokens in each case; the checkpoint itself is right in 96 % without a request and in 58 to 77 %
with one.
"""

import argparse
import copy
import random
from pathlib import Path

from transformers import PreTrainedModel

from elastic.data.sums import MAX_OPERATIONS, REQUESTS, ask
from elastic.models import tiny
from elastic.models.tiny.pretrain import ROWS, Row, fit, row, save, sorted_batches

STEPS = 100
LEARNING_RATE = 5e-4
ASKED_SHARE = 0.5  # of the rows
LENGTHS = (8, 160)  # least and greatest N


def read_requests(
    model: PreTrainedModel,
    steps: int = STEPS,
    seed: int = 0,
    *,
    asked_share: float = ASKED_SHARE,
    lengths: tuple[int, int] = LENGTHS,
    rows_per_batch: int = ROWS,
    progress: bool = True,
) -> PreTrainedModel:
    """A copy of the model, pretrained further on traces whose prompts partly ask for a length.

    The traces are those of `elastic.models.tiny.pretrain`, sums of all sizes.

    Args:
        model: the embedded model, or another one over its vocabulary; it stays as it is.
        steps: optimizer steps, at least 1.
        seed: of the data.
        asked_share: of the rows, the share that asks; one kind of request as often as the other.
        lengths: least and greatest N, drawn uniformly.
        rows_per_batch: traces per step.
        progress: whether to show a progress bar.

    Raises:
        ValueError: ``steps`` or ``rows_per_batch`` below 1, a share outside [0, 1], or lengths that are
            negative or out of order.
    """
    if steps < 1 or rows_per_batch < 1:
        raise ValueError(
            f"read_requests: steps and rows_per_batch must be at least 1, got {steps} and {rows_per_batch}"
        )
    if not 0 <= asked_share <= 1:
        raise ValueError(f"read_requests: asked_share must be in [0, 1], got {asked_share}")
    low, high = lengths
    if not 0 <= low <= high:
        raise ValueError(f"read_requests: lengths must be 0 <= least <= greatest, got {low} and {high}")
    rng = random.Random(f"requests-{seed}")

    def asking(prompt: str) -> str:
        return ask(prompt, rng.choice(list(REQUESTS)), rng.randint(low, high))

    def draw_row(step: int) -> Row:
        return row(rng, MAX_OPERATIONS, asking if rng.random() < asked_share else None)

    data = sorted_batches(rng, draw_row, steps, rows_per_batch)
    return fit(copy.deepcopy(model), data, steps, LEARNING_RATE, progress)


def main(arguments: list[str] | None = None) -> None:
    """The command line: the embedded model with the default settings."""
    parser = argparse.ArgumentParser(prog="python -m elastic.models.tiny.requests", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the checkpoint; replaced if it exists"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    model, _ = tiny.load()
    save(read_requests(model, options.steps, options.seed), options.out)


if __name__ == "__main__":
    main()
