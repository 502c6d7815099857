"""The state of a run in memory: what a failure saves, and what a second `train()` continues from."""

from typing import Any

from elastic.train.collect.rescue import Failure, add_note
from elastic.train.run.checkpoint import rng_state, set_rng_state
from elastic.train.run.metrics import MetricsLog
from elastic.train.run.progress import Progress
from elastic.train.run.state import RunState
from elastic.train.run.termination import Termination


class Standing:
    """The progress at the last step's end, and whether model and optimizer are still in that state.

    Args:
        run: what is on the disk.
        accelerator: knows the processes.
        termination: waits while the state is not usable.
    """

    def __init__(self, run: RunState, accelerator: Any, termination: Termination) -> None:
        self._run, self._accelerator, self._termination = run, accelerator, termination
        self._progress: Progress | None = None
        self._generators: dict[str, Any] = {}
        self._untouched = True
        self.finished: Progress | None = None

    def at(self, progress: Progress) -> None:
        """Call between steps, when model, optimizer and log hold exactly this progress."""
        self._progress, self._generators, self._untouched = progress, rng_state(), True
        self._termination.release()

    def touch(self) -> None:
        """Call before model or optimizer change; until the next `at`, no run can continue from them."""
        self._termination.hold()
        self._untouched = False

    def go_on(self) -> Progress:
        """The progress to continue from: the state in memory if it is usable, else the newest checkpoint."""
        if self._progress is None:
            progress = self._run.resume()
        elif self._untouched:
            progress = self._progress
            self._run.check_newest(progress)
            set_rng_state(self._generators)
        else:
            progress = self._run.reload()
        self.at(progress)
        return progress

    def rescue(self, error: BaseException, log: MetricsLog | None) -> None:
        """Saves the failed step's completions, if there are any, and a checkpoint, if the state is usable.

        Args:
            error: gets a note that names the files.
            log: synced to the disk before a checkpoint says that its steps are done.
        """
        progress, failure = self._progress, Failure.of(error)
        assert progress is not None
        if failure is not None:
            step = progress.step + (failure.what == "rollouts")
            try:
                path = failure.save(self._run.output, step, self._accelerator.process_index)
                if path is not None:
                    add_note(error, f"the completions of the failed step are in {path}")
            except Exception as second:
                add_note(error, f"the completions of the failed step could not be saved: {second!r}")
        try:
            # Processes write a checkpoint together, so all of them must have failed.
            together = self._accelerator.num_processes == 1 or (failure is not None and failure.everywhere)
            worth = progress.step > 0 or failure is not None
            if self._untouched and together and worth and self._run.saved != progress:
                if log is not None:
                    log.sync()
                path = self._run.save(progress, self._generators)
                add_note(error, f"the state after step {progress.step} is in {path}; start again to go on")
        except Exception as second:
            add_note(error, f"the state after step {progress.step} could not be saved: {second!r}")
