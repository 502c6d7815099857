"""What a failure leaves behind: the rollouts that were being worked on, and a note of where they are."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elastic.rollout import RolloutBatch
from elastic.train.collect.experience import Experience

DIRECTORY = "failed"
_ATTRIBUTE = "_elastic_failure"


@dataclass(frozen=True)
class Failure:
    """What `batch_of_failure` adds to an exception.

    Attributes:
        batch: the rollouts that were being worked on; None for none.
        what: ``rollouts`` of a step, or those of an ``evaluation``.
        everywhere: whether every process of the run left the block with an exception.
        experience: what the updates were made of; None where it did not come to them.
    """

    batch: RolloutBatch | None
    what: str
    everywhere: bool
    experience: Experience | None = None

    @staticmethod
    def of(error: BaseException) -> "Failure | None":
        """The failure that `batch_of_failure` attached to an exception, or None."""
        return getattr(error, _ATTRIBUTE, None)

    def save(self, output: Path, step: int, process: int) -> Path | None:
        """Writes the batch, if there is one, into the run's directory, for `RolloutBatch.load`.

        Beside it goes the experience, for `Trainer.replay`.

        Returns:
            The file's path; None without a batch.
        """
        if self.batch is None:
            return None
        directory = output / DIRECTORY
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"step-{step:08d}-{self.what}-process-{process}.safetensors"
        self.batch.save(path)
        if self.experience is not None:
            torch.save(vars(self.experience), experience_path(output, step, process))
        return path


def experience_path(output: Path, step: int, process: int) -> Path:
    """Where a failure in the updates of a step leaves a process's experience."""
    return output / DIRECTORY / f"step-{step:08d}-experience-process-{process}.pt"


class NotFinite(RuntimeError):
    """A gradient, a loss or a logprob is NaN or infinite. All processes raise it, or another with it."""


def check_logprobs(batch: RolloutBatch) -> None:
    """Checks the logprobs that a rollout recorded.

    Raises:
        NotFinite: some are NaN or infinite; names the rows.
    """
    finite = batch.logprobs.isfinite() & batch.full_logprobs.isfinite()
    bad = (~(finite | ~batch.sampled).all(1)).nonzero()[:, 0].tolist()
    if bad:
        raise NotFinite(
            f"the rollout's logprobs of {rows_in_words(bad, len(batch))} are not finite: the model gave NaN, "
            "or its precision does not hold its logits"
        )


def rows_in_words(rows: Sequence[int], of: int) -> str:
    """``all 16 rows``, or which ones."""
    if len(rows) == of:
        return f"all {of} rows"
    shown = ", ".join(map(str, rows[:8])) + ", ..." * (len(rows) > 8)
    return f"{len(rows)} of {of} rows ({shown})"


@contextmanager
def batch_of_failure(
    batch: RolloutBatch | None, what: str, together: Any = None, experience: Experience | None = None
) -> Iterator[None]:
    """Attaches a batch to an exception raised in the block, so that `Failure.of` finds it further up.

    Args:
        batch: what the block works on; None where only other processes have something to work on.
        what: see `Failure`.
        together: the accelerator, where every process runs the block. Then, if one leaves it with an
            exception, all do, instead of waiting for that one for ever.
        experience: see `Failure`.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if together is not None and together.num_processes > 1:
        failed = torch.tensor(int(failure is not None), device=together.device)
        if together.reduce(failed, "sum").item() and failure is None:
            failure = RuntimeError("another process failed in this step, see its own message")
    if failure is not None:
        everywhere = together is not None or isinstance(failure, NotFinite)
        setattr(failure, _ATTRIBUTE, Failure(batch, what, everywhere, experience))
        raise failure


def add_note(error: BaseException, note: str) -> None:
    """Prints a note on an exception to stderr, and adds it to the traceback where Python can (3.11)."""
    print(f"elastic: {note}", file=sys.stderr, flush=True)
    if hasattr(error, "add_note"):
        error.add_note(note)
