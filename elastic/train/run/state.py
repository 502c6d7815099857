"""All that a run must save to resume exactly: weights, optimizer, generators, counters.

Data order, budgets, sampling seeds and the learning rate are functions of the counters (`collect.seeds`,
`update.learning_rate`), so they need no saving.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from elastic.data.files import make_directory, read_text, write_atomic
from elastic.train.config import TrainConfig, changed_keys
from elastic.train.config.consent import how_to_agree, is_allowed, split_changes
from elastic.train.run.changes import note_changes
from elastic.train.run.checkpoint import (
    DIRECTORY,
    Checkpoint,
    checkpoint_path,
    checkpoint_paths,
    newest_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from elastic.train.run.directories import check_space, clear_left_overs, write_directory
from elastic.train.run.identity import EVALUATION, TRAINING
from elastic.train.run.lock import OutputLock
from elastic.train.run.optimizer_state import OptimizerState
from elastic.train.run.output import CONFIG_FILE, check_output
from elastic.train.run.progress import Progress
from elastic.train.run.space import say_space, state_bytes, weight_bytes
from elastic.train.run.weights import Weights

IDENTITY_FILE = "identity.json"


class RunState:
    """Saves and restores a run in its output directory.

    Args:
        config: of the run; a checkpoint of another one is refused.
        accelerator: knows the processes; the main one writes.
        weights: of the trained model.
        optimizer: state of the prepared one.
        identity: fingerprints of data, tokenizer and reference; a checkpoint with others is refused.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        weights: Weights,
        optimizer: OptimizerState,
        identity: dict[str, str],
    ) -> None:
        self._config, self._accelerator = config, accelerator
        self._weights, self._moments, self._identity = weights, optimizer, identity
        self.output = Path(config.train.output_dir)
        self.lock = OutputLock(self.output)
        self.saved: Progress | None = None  # of the newest checkpoint
        self.changes: list[str] = []  # of the configuration, since the checkpoint that was resumed

    def resume(self) -> Progress:
        """Loads the newest checkpoint, if there is one, and writes the configuration into the directory.

        Raises:
            ValueError: the checkpoint is damaged, or of another configuration, data or model; or what
                `check_output` refuses.
        """
        if self._accelerator.is_main_process:
            make_directory(self.output)
        self._clean()
        check_output(self._config)
        checkpoint = newest_checkpoint(self.output, clean=False)
        if checkpoint is not None:
            self._check(checkpoint)
            self._load(checkpoint)
        self._accelerator.wait_for_everyone()  # all have read the directory before the main process writes
        if self._accelerator.is_main_process:
            write_atomic(self.output / CONFIG_FILE, self._config.to_toml())
            say_space(self._config, self._moments.optimizer, self._final_bytes())
            if checkpoint is not None:
                note_changes(self.output, checkpoint.progress.step, self.changes)
        return Progress() if checkpoint is None else checkpoint.progress

    def reload(self) -> Progress:
        """Goes back to the newest checkpoint that this run has written or loaded.

        Raises:
            RuntimeError: there is none.
        """
        self._clean()
        checkpoint = newest_checkpoint(self.output, clean=False)
        if checkpoint is None:
            raise RuntimeError(
                f"this run stopped in the middle of a step and {self.output} holds no checkpoint to go back "
                "to; make a new Trainer from the starting model"
            )
        self._load(checkpoint)
        return checkpoint.progress

    def _clean(self) -> None:
        """Removes what a kill left, before any process reads the directory."""
        if self._accelerator.is_main_process:
            clear_left_overs(self.output / DIRECTORY)
        self._accelerator.wait_for_everyone()

    def check_newest(self, progress: Progress) -> None:
        """Checks that no other run has gone beyond this progress; ValueError where one has."""
        found = checkpoint_paths(self.output)
        if found and found[-1] > checkpoint_path(self.output, progress.step):
            raise ValueError(
                f"train.output_dir: another run has gone on there, to {found[-1]}; make a new Trainer, which "
                "goes on from it"
            )

    def _check(self, checkpoint: Checkpoint) -> None:
        now = self._config.to_dict()
        changes, rounding = changed_keys(checkpoint.config, now)
        allowed = self._config.train.allow_changes
        refused, agreed = split_changes(changes, allowed)
        if refused:
            raise ValueError(
                f"{checkpoint.path} was made with another configuration, so going on would be another run: "
                f"{'; '.join(refused)}{how_to_agree(refused)}"
            )
        found = json.loads(read_text(checkpoint.path / IDENTITY_FILE))
        ignored = {EVALUATION} if checkpoint.config["eval"] != now["eval"] else set()
        if is_allowed("data.source", allowed):
            ignored.add(TRAINING)
            agreed += ["training problems"] * (found[TRAINING] != self._identity[TRAINING])
        names = sorted(name for name in found.keys() & self._identity if not name.startswith(tuple(ignored)))
        others = [name for name in names if found[name] != self._identity[name]]
        if others:
            raise ValueError(
                f"{checkpoint.path} was made with other {', '.join(others)}, so going on would be another "
                "run; give it what it had, or choose another train.output_dir"
            )
        if self._config.train.steps < checkpoint.progress.step:
            raise ValueError(
                f"train.steps: must be at least the {checkpoint.progress.step} steps of {checkpoint.path}, "
                f"got {self._config.train.steps}"
            )
        before, processes = len(checkpoint.load_tensors("rng.pt")), self._accelerator.num_processes
        if before != processes:
            rounding.append(f"processes: {before} -> {processes}")
        if rounding and self._accelerator.is_main_process:
            warnings.warn(
                f"resumed with {'; '.join(rounding)}: from here on the run's numbers differ from those of an "
                "uninterrupted one by rounding",
                stacklevel=5,
            )
        self.changes = agreed + rounding

    def _load(self, checkpoint: Checkpoint) -> None:
        try:
            self._weights.read(checkpoint.model)
            self._moments.load(checkpoint.load_tensors("optimizer.pt"))
        except (KeyError, ValueError, RuntimeError, OSError) as error:
            raise ValueError(
                f"{checkpoint.path} is of another model or optimizer ({error}); give it what it had, or "
                "choose another train.output_dir"
            ) from error
        states = checkpoint.load_tensors("rng.pt")
        # Draws of the run itself are functions of its counters; these states are for the user's own code.
        set_rng_state(states[self._accelerator.process_index % len(states)])
        self.saved = checkpoint.progress

    def save(self, progress: Progress, generators: dict[str, Any] | None = None) -> Path:
        """Writes a checkpoint; returns its path when it is on the disk.

        Args:
            progress: where the run stands.
            generators: `rng_state()` of that moment; None for now.
        """
        states = gather_object([rng_state() if generators is None else generators])
        main = self._accelerator.is_main_process
        weights, moments = self._weights.gather(main), self._moments.gather(main)

        def write(directory: Path) -> None:
            self._weights.write(directory / "model", weights)
            torch.save(moments, directory / "optimizer.pt")
            torch.save(states, directory / "rng.pt")
            (directory / IDENTITY_FILE).write_text(json.dumps(self._identity, indent=1))

        if self._accelerator.is_main_process:
            self.lock.check()
            keep, needed = self._config.train.keep_checkpoints, state_bytes(self._moments.optimizer)
            save_checkpoint(self.output, progress, self._config.to_dict(), write, keep, needed)
        self._accelerator.wait_for_everyone()
        self.saved = progress
        return checkpoint_path(self.output, progress.step)

    def _final_bytes(self) -> int:
        return self._weights.final_bytes(weight_bytes(self._moments.optimizer))

    def save_model(self, target: Path) -> Path:
        """Writes the model as it is, and its tokenizer, as a Hugging Face directory; returns its path."""
        weights = self._weights.gather(self._accelerator.is_main_process)
        if self._accelerator.is_main_process:
            self.lock.check()
            check_space(target, self._final_bytes())
            write_directory(target, lambda directory: self._weights.write_final(directory, weights))
        self._accelerator.wait_for_everyone()
        return target
