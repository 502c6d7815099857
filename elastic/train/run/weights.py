"""How the trained model's weights are written to a directory, and read back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elastic.models.adapter import has_adapter
from elastic.models.adapter_files import fingerprint_of, read_adapter, write_adapter
from elastic.models.adapter_merge import merged_copy
from elastic.models.quiet import quiet_transformers
from elastic.models.sharding import gather_state, is_sharded, load_state


class Weights:
    """The trained model, as checkpoints and the final directory hold it.

    Args:
        model: the trained model, not wrapped, still whole.
        tokenizer: saved beside it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._type = type(model)  # sharding gives the model another one

    def gather(self, keep: bool) -> dict[str, Tensor] | None:
        """What `write` needs of a sharded model, which all processes gather together; else None.

        Args:
            keep: for the process that writes.
        """
        return gather_state(self._model, keep) if is_sharded(self._model) else None

    def write(self, directory: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Writes a Hugging Face directory.

        Args:
            directory: new or empty.
            gathered: what `gather` returned.
        """
        with quiet_transformers():
            self._model.save_pretrained(directory, state_dict=gathered)
        self._tokenizer.save_pretrained(directory)

    def write_final(self, directory: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Writes the directory of a finished run."""
        self.write(directory, gathered)

    def final_bytes(self, trained: int) -> int:
        """The least that `write_final` takes of the disk, where the trained weights have `trained` bytes."""
        return trained

    def read(self, directory: Path) -> None:
        """Loads what `write` wrote into the model.

        The model's own loader undoes what its saver did to names, shards and tied weights. Loaded in the
        widest dtype, since parts of a model may differ and a narrower one would round them.
        """
        dtypes = {parameter.dtype for parameter in self._model.parameters()}
        widest = max(torch.float32, *dtypes, key=lambda dtype: dtype.itemsize)
        with quiet_transformers():
            saved = self._type.from_pretrained(directory, dtype=widest)
        load_state(self._model, saved.state_dict())


class AdapterWeights(Weights):
    """The adapter alone: what a checkpoint holds of a model whose base is not trained.

    Args:
        model: a `PeftModel`, not wrapped, in its state at the start.
        tokenizer: saved beside it.
        merge: whether the final directory holds the merged model.
    """

    def __init__(self, model: Any, tokenizer: Any, merge: bool) -> None:
        super().__init__(model, tokenizer)
        self._merge = merge
        self._base = fingerprint_of(model)

    def write(self, directory: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Writes an adapter's directory, see `elastic.models.adapter_files`."""
        write_adapter(self._model, directory, self._base)
        self._tokenizer.save_pretrained(directory)

    def write_final(self, directory: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Writes the adapter, or a Hugging Face directory of the merged model."""
        if self._merge:
            Weights(merged_copy(self._model), self._tokenizer).write(directory)
        else:
            self.write(directory)

    def final_bytes(self, trained: int) -> int:
        """Of the merged model those of its base, which is all that is frozen."""
        frozen = (p.numel() * p.element_size() for p in self._model.parameters() if not p.requires_grad)
        return sum(frozen) if self._merge else trained

    def read(self, directory: Path) -> None:
        """Loads what `write` wrote into the adapter.

        Raises:
            ValueError: an adapter of another base, or of another shape.
        """
        read_adapter(self._model, directory)


def weights_of(model: Any, tokenizer: Any, merge: bool) -> Weights:
    """Of a trained model: `AdapterWeights` where it has an adapter."""
    return AdapterWeights(model, tokenizer, merge) if has_adapter(model) else Weights(model, tokenizer)
