"""An adapter's directory: what peft reads, and the fingerprint of the base that the adapter was made for.

adapter_model.safetensors    the adapter's tensors
adapter_config.json          peft's configuration, with the name of the base
base_fingerprint.json        digests of the base's weights, see `Fingerprint`
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elastic.data.files import read_text
from elastic.models.adapter import active_adapter, adapter_tensors, base_tensors, wrap
from elastic.models.fingerprint import weights_digest

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
FINGERPRINT = "base_fingerprint.json"
# What bases are compared in where they were loaded in another dtype than that of the training.
_COMMON = torch.bfloat16


@dataclass(frozen=True)
class Fingerprint:
    """Which base an adapter belongs to.

    Attributes:
        dtype: the base's, when the adapter was trained.
        digest: of its weights as they were.
        rounded: of its weights rounded to bfloat16, by which it is known again in another dtype.
    """

    dtype: str
    digest: str
    rounded: str

    @classmethod
    def of(cls, base: Any, tensors: list[tuple[str, Tensor]]) -> "Fingerprint":
        """Of a base model and its tensors."""
        return cls(
            str(base.dtype).removeprefix("torch."), weights_digest(tensors), weights_digest(tensors, _COMMON)
        )

    def matches(self, other: "Fingerprint") -> bool:
        """Whether both are of the same base."""
        if self.dtype == other.dtype:
            return self.digest == other.digest
        return self.rounded == other.rounded


def fingerprint_of(model: Any) -> Fingerprint:
    """Of the base inside a `PeftModel`."""
    return Fingerprint.of(model, list(base_tensors(model)))


def is_adapter(path: str | os.PathLike) -> bool:
    """Whether a directory holds an adapter, and no whole model."""
    directory = Path(path)
    return (directory / CONFIG).is_file() and not (directory / "config.json").is_file()


def base_path(path: str | os.PathLike) -> str:
    """The name of the base that an adapter's configuration gives.

    Raises:
        ValueError: it is no JSON object, or names none.
    """
    file = Path(path) / CONFIG
    try:
        plain = json.loads(read_text(file))
        name = plain["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"path: {str(file)!r} names no base model ({error!r})") from error
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"path: {str(file)!r} names no base model (base_model_name_or_path is {name!r}); give it as base="
        )
    return name


def write_adapter(model: Any, directory: Path, base: Fingerprint) -> None:
    """Writes a `PeftModel`'s active adapter.

    Args:
        base: of the base as the training found it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_tensors(model).items()}
    save_file(tensors, directory / TENSORS, metadata={"format": "pt"})
    model.peft_config[active_adapter(model)].save_pretrained(str(directory))
    (directory / FINGERPRINT).write_text(json.dumps(vars(base), indent=1))


def read_adapter(model: Any, directory: str | os.PathLike) -> None:
    """Loads an adapter's tensors into a `PeftModel` of the same kind.

    Raises:
        ValueError: of another base, by the fingerprints; or tensors that are damaged, missing, unknown or of
            another shape.
    """
    from peft import set_peft_model_state_dict

    path = Path(directory)
    check_base(path, fingerprint_of(model))
    try:
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"path: {str(path / TENSORS)!r} cannot be read: {error}") from error
    own = adapter_tensors(model)
    for name in sorted(own.keys() ^ tensors.keys()):
        what = "lacks" if name in own else "has, and the adapter's configuration does not,"
        raise ValueError(f"path: {str(path / TENSORS)!r} {what} {name!r}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"path: {str(path / TENSORS)!r}: {name!r} has shape {list(tensor.shape)}, its configuration "
                f"says {list(own[name].shape)}"
            )
    set_peft_model_state_dict(model, tensors, adapter_name=active_adapter(model))


def check_base(directory: Path, base: Fingerprint) -> None:
    """Refuses a base that an adapter was not made for; an adapter without a fingerprint takes any.

    Raises:
        ValueError: another base, or a fingerprint that cannot be read.
    """
    file = directory / FINGERPRINT
    if not file.is_file():
        return
    try:
        made_for = Fingerprint(**json.loads(read_text(file)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"path: {str(file)!r} is damaged: {error}") from error
    if not made_for.matches(base):
        raise ValueError(
            f"path: the adapter {str(directory)!r} was made for another base model: these weights are "
            "not those that it was trained over"
        )


def load_adapter(model: Any, directory: str | os.PathLike) -> Any:
    """A `PeftModel` around a loaded base, with the adapter of a directory; its parameters can be trained.

    Raises:
        ValueError: as of `read_adapter` or `with_unread_adapter`.
    """
    adapted = with_unread_adapter(model, directory)
    read_adapter(adapted, directory)
    return adapted


def with_unread_adapter(model: Any, directory: str | os.PathLike) -> Any:
    """A `PeftModel` around a base, as a directory's configuration says, without the values stored there.

    Raises:
        ModuleNotFoundError: peft is not installed.
        ValueError: a configuration that does not fit the base.
    """
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(directory))
        config.inference_mode = False
        return wrap(model, config)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"path: the adapter of {os.fspath(directory)!r} does not fit its base: {error}"
        ) from error
