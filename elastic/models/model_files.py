"""The files of a model, on disk or on the hub. A fault in one of them is one error that names it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers import __version__ as transformers_version

from elastic.data.hub_access import brief, hub_obstacle
from elastic.models.adapter_files import is_adapter

_NAMES_SHOWN = 4  # of many missing weights
# Without any of these AutoTokenizer builds an empty tokenizer of the model's family and says nothing.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
_LFS_POINTER = b"version https://git-lfs"


def find_files(path: str | os.PathLike) -> dict[str, Any]:
    """Checks that a path can be a model's directory, or else that the hub can be asked for it.

    Returns:
        Options for each `from_pretrained` of this model.

    Raises:
        ValueError: no such directory; or it lacks config.json or a tokenizer, or holds Git LFS pointers.
    """
    options = find_config(path)
    if options:
        return options
    text = os.fspath(path)
    if not holds_tokenizer(path):
        raise ValueError(
            f"path: {text!r} holds no tokenizer (one of {', '.join(_TOKENIZER_FILES)}); "
            "save the model's tokenizer there with tokenizer.save_pretrained"
        )
    for file in sorted(Path(path).iterdir()):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(_LFS_POINTER):
            raise ValueError(f"path: {str(file)!r} is a Git LFS pointer; fetch the file itself: git lfs pull")
    _check_ends(Path(path) / "generation_config.json")
    return {}


def holds_tokenizer(path: str | os.PathLike) -> bool:
    """Whether a directory has a tokenizer's files."""
    return not set(os.listdir(path)).isdisjoint(_TOKENIZER_FILES)


def find_config(path: str | os.PathLike) -> dict[str, Any]:
    """`find_files` for the configuration alone: tokenizer and weights need not be there.

    Raises:
        ValueError: no such directory, or it lacks config.json.
    """
    text = os.fspath(path)
    if not os.path.isdir(path):
        if not _is_hub_id(path) or os.path.exists(path):
            raise ValueError(f"path: no such directory: {text!r}")
        return {"local_files_only": bool(hub_obstacle())}
    if is_adapter(path):
        raise ValueError(
            f"path: {text!r} holds an adapter, and a whole model is needed here: save the merged one, "
            "elastic.load_model(path, merge=True), or train with adapter.merge = true"
        )
    if not (Path(path) / "config.json").is_file():
        inner = Path(path) / "model"  # as in a training's checkpoint
        hint = f"; {os.fspath(inner)!r} may be meant" if inner.is_dir() else ""
        raise ValueError(
            f"path: {text!r} holds no config.json, so it is no Hugging Face model directory{hint}"
        )
    return {}


def read_config(path: str | os.PathLike, options: dict[str, Any]) -> tuple[Any, type]:
    """The configuration of a causal language model, and the model's class.

    Raises:
        ValueError: it cannot be read, or is of another kind of model, or of one that this transformers does
            not know.
    """
    name = os.fspath(path)
    try:
        with _reading(path, "config.json"):
            plain, _ = PreTrainedConfig.get_config_dict(path, **options)
    except ValueError as error:
        if os.path.isdir(path):
            raise
        raise ValueError(_not_on_the_hub(name, error, **options)) from error
    if not isinstance(plain, dict):
        raise ValueError(f"path: config.json of {name!r}: expected an object, got a {type(plain).__name__}")
    kind = plain.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        raise ValueError(f"path: {name!r}: {_unknown(kind, plain)}")
    with _reading(path, "config.json"):
        config = AutoConfig.from_pretrained(path, **options)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"path: {name!r} is an encoder-decoder model ({config.model_type}); "
            "only causal (decoder-only) language models can be served"
        )
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"path: {name!r}: {config.model_type} has no causal language model")
    pad, vocab = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(vocab, int) and pad >= vocab:
        raise ValueError(
            f"path: config.json of {name!r}: pad_token_id: expected null or an id below vocab_size = "
            f"{vocab}, got {pad}"
        )
    known: Any = AutoModelForCausalLM._model_mapping[type(config)]
    return config, known


def read_tokenizer(path: str | os.PathLike, options: dict[str, Any]) -> Any:
    """The tokenizer; ValueError where it cannot be read or is empty."""
    with _reading(path, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    if len(tokenizer) == 0:
        raise ValueError(f"path: the tokenizer of {os.fspath(path)!r} is empty")
    return tokenizer


def read_weights(path: str | os.PathLike, **options: Any) -> tuple[Any, str]:
    """The model, and in words which weights are missing or unknown, at which transformers only warns.

    Raises:
        ValueError: the weights cannot be read, or have other shapes than the model's.
    """
    name = repr(os.fspath(path))
    loader: Any = AutoModelForCausalLM.from_pretrained
    with _reading(path, "the weights"):
        model, info = loader(path, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    if info["mismatched_keys"]:
        shapes = [
            f"{key} ({_shape(stored)}, the model's is {_shape(own)})"
            for key, stored, own in sorted(info["mismatched_keys"])
        ]
        raise ValueError(f"path: weights of {name} have other shapes than its config says: {_first(shapes)}")
    # Tied weights and keys that the architecture declares as ignored are in neither set.
    problems = []
    if info["missing_keys"]:
        problems.append(f"lacks weights, which would be random: {_first(sorted(info['missing_keys']))}")
    if info["unexpected_keys"]:
        kind = type(model).__name__
        unknown = _first(sorted(info["unexpected_keys"]))
        problems.append(f"has weights that {kind} does not know, which would be left out: {unknown}")
    return model, f"{name} {'; and '.join(problems)}" if problems else ""


def _is_hub_id(path: str | os.PathLike) -> bool:
    if not isinstance(path, str) or os.path.isdir(os.path.dirname(path)):
        return False
    try:
        validate_repo_id(path)
    except ValueError:
        return False
    return True


@contextmanager
def _reading(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Turns what transformers and the libraries below it raise over a file into one error."""
    name = os.fspath(path)
    try:
        yield
    except (ImportError, MemoryError):  # a package that this model needs; no fault of its files
        raise
    except SafetensorError as error:
        raise ValueError(f"path: {what} of {name!r} are damaged: {error}") from error
    except Exception as error:
        damaged = (_not_json(file) for file in sorted(Path(path).glob("*.json")))
        why = next(filter(None, damaged), "") or f"{what} of {name!r} cannot be read: {brief(error)}"
        raise ValueError(f"path: {why}") from error


def _check_ends(file: Path) -> None:
    """Refuses an unreadable generation config: transformers would ignore it, and with it the EOS ids."""
    if problem := _not_json(file):
        raise ValueError(f"path: {problem}")
    plain = json.loads(file.read_bytes()) if file.exists() else {}
    ends = plain.get("eos_token_id") if isinstance(plain, dict) else plain
    if not all(isinstance(i, int) for i in (ends if isinstance(ends, list) else [ends or 0])):
        raise ValueError(f"path: {str(file)!r}: eos_token_id: expected an id or a list of ids, got {ends!r}")


def _not_json(file: Path) -> str:
    """What is wrong with a JSON file; empty if nothing is, or if there is none."""
    try:
        json.loads(file.read_bytes())
    except FileNotFoundError:
        return ""
    except (ValueError, RecursionError) as error:
        return f"{str(file)!r} is not JSON: {error}"
    return ""


def _unknown(kind: Any, plain: dict[str, Any]) -> str:
    if "auto_map" in plain:
        return (
            f"model_type {kind!r} comes with code of its own, which is not run from here; load it with "
            "transformers (trust_remote_code=True) and give the model to RolloutEngine or Trainer"
        )
    return f"model_type {kind!r} is unknown to transformers {transformers_version}; a newer one may know it"


def _not_on_the_hub(name: str, error: ValueError, local_files_only: bool) -> str:
    where = f"path: no directory {name!r}"
    if not local_files_only:
        return f"{where}, and no model of that name from the hub: {brief(error.__cause__ or error)}"
    return (
        f"{where}, and the hub is out of reach ({hub_obstacle()}) with no such model in its cache; download "
        f"it where there is a network (hf download {name} --local-dir DIRECTORY) and give the directory"
    )


def _first(names: list[str]) -> str:
    """The first few of many."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shape(sizes: Any) -> str:
    return " x ".join(str(size) for size in sizes)
