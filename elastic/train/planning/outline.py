"""A model as its config.json describes it: every tensor with its shape and dtype, none with values.

A forward over such tensors computes shapes, so what a model takes is found by running it, and no formula
knows architectures. Sizes are read off tensors on the device "meta". What must be run as on the CPU, under
autocast and with fused attention, is run on fake tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from elastic.models import check_device, tiny
from elastic.models.loading import check_dtype
from elastic.models.model_files import find_config, find_files, read_config, read_tokenizer
from elastic.models.quiet import quiet_transformers
from elastic.models.rollout_model import RolloutModel
from elastic.train.config import TrainConfig


class Outline:
    """The trained model of a configuration and the model that its rollouts run on.

    Args:
        config: of the run. Of its model only config.json is read, and the tokenizer if there is one: from a
            directory, the hub's cache or the hub.

    Raises:
        ValueError: no such model, or config.json cannot be read or is of no causal language model; or an
            unknown device or dtype.
    """

    def __init__(self, config: TrainConfig) -> None:
        chosen = config.model
        self.device = check_device(chosen.device)
        path = tiny.checkpoint() if chosen.path == tiny.NAME else chosen.path
        with quiet_transformers():
            options = find_config(path)
            model_config, _ = read_config(path, options)
            self.tokenizer, self.no_tokenizer = _tokenizer(path, options)
            dtype = check_dtype(chosen.dtype, self.device, model_config)
            self._config, self._dtype = model_config, dtype
            with torch.device("meta"):
                self.model = self._built()
        # Not of fake tensors: their deepcopy reads memory that they do not have.
        self.rollout_model = RolloutModel(self.model, config.train.mixed_precision).module

    @property
    def parameters(self) -> int:
        """How many weights the trained model has; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @contextmanager
    def on_cpu(self) -> Iterator[Any]:
        """A block in which the trained model, of fake tensors, can be run."""
        with FakeTensorMode(allow_non_fake_inputs=True), quiet_transformers():
            yield self._built()

    def _built(self) -> Any:
        return AutoModelForCausalLM.from_config(self._config, dtype=self._dtype).eval()


def tensor_bytes(*tensors: torch.Tensor) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tokenizer(path: Any, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer, or None and why there is none."""
    try:
        if not options:  # a directory: without these files transformers would make up a tokenizer
            find_files(path)
        return read_tokenizer(path, options), ""
    except (ValueError, ImportError) as error:
        return None, str(error)
