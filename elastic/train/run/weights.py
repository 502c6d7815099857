"""How the trained model's weights are written to a directory, and read back."""

from pathlib import Path
from typing import Any

import torch

from elastic.models.quiet import quiet_transformers


class Weights:
    """The trained model, as checkpoints and the final directory hold it.

    Args:
        model: the trained model, not wrapped.
        tokenizer: saved beside it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def write(self, directory: Path) -> None:
        """Writes a Hugging Face directory."""
        with quiet_transformers():
            self._model.save_pretrained(directory)
        self._tokenizer.save_pretrained(directory)

    def read(self, directory: Path) -> None:
        """Loads what `write` wrote into the model.

        The model's own loader undoes what its saver did to names, shards and tied weights. Loaded in the
        widest dtype, since parts of a model may differ and a narrower one would round them.
        """
        dtypes = {parameter.dtype for parameter in self._model.parameters()}
        widest = max(torch.float32, *dtypes, key=lambda dtype: dtype.itemsize)
        with quiet_transformers():
            saved = type(self._model).from_pretrained(directory, dtype=widest)
        self._model.load_state_dict(saved.state_dict())
