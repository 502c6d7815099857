"""A model as its config.json describes it: every tensor with its shape and dtype, none with values.

A forward over such tensors computes shapes, so what a model takes is found by running it, and no formula
knows architectures. Sizes are read off tensors on the device "meta". What must be run as on the CPU, under
autocast and with fused attention, is run on fake tensors.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from elastic.models import check_device, tiny
from elastic.models.adapter import has_adapter
from elastic.models.adapter_files import base_path, is_adapter, with_unread_adapter
from elastic.models.loading import check_dtype
from elastic.models.model_files import find_config, find_files, holds_tokenizer, read_config, read_tokenizer
from elastic.models.quiet import quiet_transformers
from elastic.models.rollout_model import RolloutModel
from elastic.train.config import TrainConfig
from elastic.train.run.adapter import with_adapter


class Outline:
    """The trained model of a configuration and the model that its rollouts run on.

    Args:
        config: of the run. Of its model only config.json is read, and the tokenizer if there is one: from a
            directory, the hub's cache or the hub. Of an adapter's directory the adapter's configuration, and
            its base's config.json.

    Raises:
        ModuleNotFoundError: an adapter without peft.
        ValueError: no such model, or config.json cannot be read or is of no causal language model; an adapter
            that does not fit it, or that `with_adapter` refuses; or an unknown device or dtype.
    """

    def __init__(self, config: TrainConfig) -> None:
        chosen = config.model
        self.device = check_device(chosen.device)
        self._adapter = chosen.path if is_adapter(chosen.path) else None
        name = chosen.path if self._adapter is None else base_path(self._adapter)
        path = tiny.checkpoint() if name == tiny.NAME else name
        with quiet_transformers():
            options = find_config(path)
            model_config, _ = read_config(path, options)
            self.tokenizer, self.no_tokenizer = _tokenizer(path, options, self._adapter)
            dtype = check_dtype(chosen.dtype, self.device, model_config)
            self._config, self._dtype, self._run = model_config, dtype, config
            with torch.device("meta"):
                self.model = self._built()
        # Not of fake tensors: their deepcopy reads memory that they do not have.
        precision = config.train.mixed_precision if config.rollout.engine == "own" else "no"
        merged = self.has_adapter and config.rollouts_merged
        self.rollout_model = RolloutModel(self.model, precision, merged).module

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, a new one or that of a directory."""
        return has_adapter(self.model)

    @property
    def starts_from_base(self) -> bool:
        """Whether the starting model is the trained model without its adapter."""
        return self.has_adapter and self._adapter is None

    @property
    def parameters(self) -> int:
        """How many weights the trained model has; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @contextmanager
    def on_cpu(self) -> Iterator[Any]:
        """A block in which the trained model, of fake tensors, can be run."""
        adapted = copy.deepcopy(self.model) if self.has_adapter else None
        with FakeTensorMode(allow_non_fake_inputs=True), quiet_transformers():
            # peft moves modules about, which those of fake tensors cannot be.
            yield self._built() if adapted is None else _faked(adapted)

    def _built(self) -> Any:
        model = AutoModelForCausalLM.from_config(self._config, dtype=self._dtype).eval()
        if self._adapter is not None:
            model = with_unread_adapter(model, self._adapter)
        return with_adapter(model, self._run)


def _faked(model: Any) -> Any:
    """A model on the device "meta", its tensors replaced by fake ones on the CPU; call it under the mode."""
    known: dict[int, Any] = {}
    for module in model.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                fake = torch.empty_like(tensor, device="cpu", requires_grad=False)
                parameter = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                module._parameters[name] = known.setdefault(id(tensor), parameter)
        for name, tensor in module._buffers.items():
            if tensor is not None:
                module._buffers[name] = torch.empty_like(tensor, device="cpu")
    return model


def tensor_bytes(*tensors: torch.Tensor) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tokenizer(path: Any, options: dict[str, Any], adapter: str | None) -> tuple[Any, str]:
    """The tokenizer, an adapter's own before its base's; or None and why there is none."""
    try:
        if adapter is not None and holds_tokenizer(adapter):
            return read_tokenizer(adapter, {}), ""
        if not options:  # a directory: without these files transformers would make up a tokenizer
            find_files(path)
        return read_tokenizer(path, options), ""
    except (ValueError, ImportError) as error:
        return None, str(error)
