"""All that a run must save to go on exactly: weights, optimizer, generators, counters.

Data order, budgets, sampling seeds and the learning rate are functions of the counters (`seeds`,
`schedule`), so there is nothing of them to save.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from elastic.files import write_atomic
from elastic.train.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
    write_directory,
)
from elastic.train.config import TrainConfig, changed_keys
from elastic.train.progress import Progress
from elastic.train.quiet import quiet_transformers
from elastic.train.sections_update import OptimConfig

FINAL_DIRECTORY = "final"
CONFIG_FILE = "config.toml"


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as biases and norms have no scale to shrink."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,  # one kernel for all parameters, on the CPU too
    )


class RunState:
    """Saves and restores a run in its output directory.

    Args:
        config: of the run; a checkpoint of another one is refused.
        accelerator: knows the processes; the main one writes.
        model: the trained model, not wrapped.
        optimizer: as prepared.
        tokenizer: saved beside the model.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Any, model: Any, optimizer: Any, tokenizer: Any
    ) -> None:
        self._config, self._accelerator = config, accelerator
        self._model, self._optimizer, self._tokenizer = model, optimizer, tokenizer
        self._output = Path(config.train.output_dir)

    def resume(self) -> Progress:
        """Loads the newest checkpoint, if there is one, and writes the configuration into the directory.

        Raises:
            ValueError: the checkpoint is damaged, or of another configuration, or ``train.resume`` is
                ``never``.
        """
        if self._accelerator.is_main_process:
            self._output.mkdir(parents=True, exist_ok=True)
        self._accelerator.wait_for_everyone()
        checkpoint = newest_checkpoint(self._output, clean=self._accelerator.is_main_process)
        if checkpoint is not None:
            self._check(checkpoint)
            self._load(checkpoint)
        if self._accelerator.is_main_process:
            write_atomic(self._output / CONFIG_FILE, self._config.to_toml())
        return Progress() if checkpoint is None else checkpoint.progress

    def _check(self, checkpoint: Checkpoint) -> None:
        if self._config.train.resume == "never":
            raise ValueError(
                f"train.resume: 'never', but {checkpoint.path} exists; choose another train.output_dir"
            )
        changes = changed_keys(checkpoint.config, self._config.to_dict())
        if changes:
            raise ValueError(
                f"{checkpoint.path} was made with another configuration, so going on would be another run: "
                f"{'; '.join(changes)}"
            )
        if self._config.train.steps < checkpoint.progress.step:
            raise ValueError(
                f"train.steps: must be at least the {checkpoint.progress.step} steps of {checkpoint.path}, "
                f"got {self._config.train.steps}"
            )

    def _load(self, checkpoint: Checkpoint) -> None:
        # Through the model's own loader: it undoes what its saver did to names, shards and tied weights. In
        # the widest type: parts of a model may differ, and a narrower one would round them.
        dtypes = {parameter.dtype for parameter in self._model.parameters()}
        widest = max(torch.float32, *dtypes, key=lambda dtype: dtype.itemsize)
        with quiet_transformers():
            saved = type(self._model).from_pretrained(checkpoint.model, dtype=widest)
        self._model.load_state_dict(saved.state_dict())
        self._optimizer.load_state_dict(checkpoint.load_tensors("optimizer.pt"))
        states = checkpoint.load_tensors("rng.pt")
        if len(states) != self._accelerator.num_processes:
            raise ValueError(
                f"{checkpoint.path} was made by {len(states)} processes, this run has "
                f"{self._accelerator.num_processes}"
            )
        set_rng_state(states[self._accelerator.process_index])

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint; returns when it is on the disk."""
        states = gather_object([rng_state()])

        def write(directory: Path) -> None:
            self._write_model(directory / "model")
            torch.save(self._optimizer.state_dict(), directory / "optimizer.pt")
            torch.save(states, directory / "rng.pt")

        if self._accelerator.is_main_process:
            keep = self._config.train.keep_checkpoints
            save_checkpoint(self._output, progress, self._config.to_dict(), write, keep)
        self._accelerator.wait_for_everyone()

    def save_final(self) -> Path:
        """Writes the trained model and its tokenizer as a Hugging Face directory; returns its path."""
        final = self._output / FINAL_DIRECTORY
        if self._accelerator.is_main_process:
            write_directory(final, self._write_model)
        self._accelerator.wait_for_everyone()
        return final

    def _write_model(self, directory: Path) -> None:
        with quiet_transformers():
            self._model.save_pretrained(directory)
        self._tokenizer.save_pretrained(directory)
