"""Where a run stands in memory: what a failure leaves behind, and what a second call goes on from."""

from typing import Any

from elastic.train.collect.rescue import Failure, add_note
from elastic.train.run.checkpoint import rng_state, set_rng_state
from elastic.train.run.metrics import MetricsLog
from elastic.train.run.progress import Progress
from elastic.train.run.state import RunState


class Standing:
    """The last moment between two steps, and whether model and optimizer are still as they were then.

    Args:
        run: what is on the disk.
        accelerator: knows the processes.
    """

    def __init__(self, run: RunState, accelerator: Any) -> None:
        self._run, self._accelerator = run, accelerator
        self._progress: Progress | None = None
        self._generators: dict[str, Any] = {}
        self._untouched = True
        self.finished: Progress | None = None

    def at(self, progress: Progress) -> None:
        """All that came before is in model, optimizer and log, and nothing else is."""
        self._progress, self._generators, self._untouched = progress, rng_state(), True

    def touch(self) -> None:
        """Model or optimizer are about to change; until the next `at` no run could go on from them."""
        self._untouched = False

    def go_on(self) -> Progress:
        """Where to start: the state in memory, if one can go on from it, or that on the disk."""
        if self._progress is None:
            progress = self._run.resume()
        elif self._untouched:
            progress = self._progress
            set_rng_state(self._generators)
        else:
            progress = self._run.reload()
        self.at(progress)
        return progress

    def rescue(self, error: BaseException, log: MetricsLog | None) -> None:
        """Leaves the failed step's completions, if there are any, and a checkpoint, if the state is one.

        Args:
            error: gets a note of what is where.
            log: put on the disk before a checkpoint says that its steps are done.
        """
        progress, failure = self._progress, Failure.of(error)
        assert progress is not None
        if failure is not None:
            step = progress.step + (failure.what == "rollouts")
            try:
                path = failure.save(self._run.output, step, self._accelerator.process_index)
                add_note(error, f"the completions of the failed step are in {path}")
            except Exception as second:
                add_note(error, f"the completions of the failed step could not be saved: {second!r}")
        try:
            # Processes write a checkpoint together, so all of them must have come here.
            together = self._accelerator.num_processes == 1 or (failure is not None and failure.everywhere)
            worth = progress.step > 0 or failure is not None
            if self._untouched and together and worth and self._run.saved != progress:
                if log is not None:
                    log.sync()
                path = self._run.save(progress, self._generators)
                add_note(error, f"the state after step {progress.step} is in {path}; start again to go on")
        except Exception as second:
            add_note(error, f"the state after step {progress.step} could not be saved: {second!r}")
