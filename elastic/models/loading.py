"""Loading Hugging Face causal language models; every choice is checked first and printed to stderr."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from elastic.models import tiny
from elastic.models.adapter_files import base_path, is_adapter, load_adapter
from elastic.models.adapter_merge import merged_copy
from elastic.models.model_files import (
    find_files,
    holds_tokenizer,
    read_config,
    read_tokenizer,
    read_weights,
)
from elastic.models.quiet import quiet_transformers

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ATTENTIONS = ("auto", "flash_attention_2", "sdpa", "eager")


def load_model(
    path: str | os.PathLike,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    attention: str = "auto",
    allow_missing: bool = False,
    base: str | os.PathLike | None = None,
    merge: bool = False,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, ready for inference.

    Args:
        path: a local directory as `save_pretrained` writes it, a Hugging Face hub id, or `tiny` for the model
            that comes with the package. Without a network, hub models come from its cache or not at all. Or
            the directory of an adapter: its base is loaded as the other arguments say, the adapter over it.
        dtype: "float32", "bfloat16", "float16" (or the torch dtype); "auto" takes the checkpoint's on CUDA
            and float32 on the CPU, where decoding in bfloat16 takes twice the time.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes CUDA where torch sees a device.
        attention: "flash_attention_2", "sdpa" or "eager"; "auto" takes flash-attn where it is installed, the
            device is CUDA, the dtype is 16 bits wide and the model supports it, else what transformers
            prefers for the model (SDPA where supported). The choice is printed to stderr in one line.
        allow_missing: accept a checkpoint that lacks weights of the model (they are then random) or has
            weights that the model does not know (they are left out); a line on stderr says so.
        base: of an adapter: its base, by default the one that its configuration names.
        merge: of an adapter: whether the model is a plain one with the adapter in its weights, and not a
            `PeftModel`.

    Returns:
        (model, tokenizer); the model in eval mode on its device.

    Raises:
        TypeError: dtype or attention is not a name.
        ValueError: an unknown or unavailable choice, a missing or damaged directory, config.json or
            tokenizer, a model that is no causal language model, or a hub that cannot be asked; all of it
            before weights are read. Then: weights that cannot be read, that have other shapes than the
            model's, or that are missing or unknown, naming the first. Or an adapter of another base.
        ImportError: the checkpoint needs a package that is not installed; an adapter needs peft.
    """
    if is_adapter(path):
        chosen = {"dtype": dtype, "device": device, "attention": attention, "allow_missing": allow_missing}
        return _load_adapted(path, base, merge, **chosen)
    for key, is_given in {"base": base is not None, "merge": merge}.items():
        if is_given:
            raise ValueError(f"{key}: is for an adapter's directory; {os.fspath(path)!r} is none")
    device = check_device(device)
    name = os.fspath(path)
    if path == tiny.NAME:
        path = tiny.checkpoint()
    with quiet_transformers(bars=sys.stderr.isatty()):
        options = find_files(path)
        config, model_class = read_config(path, options)
        dtype = check_dtype(dtype, device, config)
        implementation, reason = _check_attention(attention, device, dtype, model_class)
        tokenizer = read_tokenizer(path, options)
        options |= {"config": config, "dtype": dtype, "attn_implementation": implementation}
        model, problem = read_weights(path, **options)
    if problem and not allow_missing:
        raise ValueError(f"path: {problem} (allow_missing=True takes it as it is)")
    if problem:
        print(f"elastic: {problem}", file=sys.stderr)
    torch.nn.Module.to(model, device).eval()
    what = f"{model.config.model_type}, {str(dtype).removeprefix('torch.')} on {device}"
    attention = f"{model.config._attn_implementation} ({reason})"
    print(f"elastic: {name}: {what}, attention {attention}", file=sys.stderr)
    return model, tokenizer


def _load_adapted(path: Any, base: Any, merge: bool, **options: Any) -> tuple[Any, Any]:
    name = os.fspath(path)
    below = base_path(path) if base is None else base
    if find_spec("peft") is None:
        raise ModuleNotFoundError(f"path: the adapter {name!r} needs peft: pip install elastic[lora]")
    if is_adapter(below):
        raise ValueError(f"path: the base of the adapter {name!r} is {os.fspath(below)!r}, an adapter itself")
    try:
        model, tokenizer = load_model(below, **options)
    except ValueError as error:
        raise ValueError(f"path: the base of the adapter {name!r}: {error}") from error
    model = load_adapter(model, path).eval()
    if merge:
        model = merged_copy(model).requires_grad_(True)
    if holds_tokenizer(path):
        with quiet_transformers():
            tokenizer = read_tokenizer(path, {})
    print(f"elastic: {name}: adapter, {'merged' if merge else 'beside its base'}", file=sys.stderr)
    return model, tokenizer


def load_tokenizer(path: str | os.PathLike) -> Any:
    """The tokenizer of a model that `load_model` would load, without its weights.

    Raises:
        ValueError: as of `load_model`.
    """
    if path == tiny.NAME:
        path = tiny.checkpoint()
    with quiet_transformers():
        return read_tokenizer(path, find_files(path))


def check_device(device: str | torch.device) -> torch.device:
    """The device of a name; ValueError where there is none."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got '{device}'")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            why = (
                "this torch is built without CUDA"
                if torch.version.cuda is None
                else "torch sees no CUDA device"
            )
            raise ValueError(f"device: '{device}' was asked for, but {why}")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ValueError(f"device: '{device}' was asked for, but there are {torch.cuda.device_count()}")
    return device


def check_dtype(dtype: str | torch.dtype, device: torch.device, config: Any) -> torch.dtype:
    """The dtype of a name; ValueError or TypeError where it is none that models are loaded in."""
    if isinstance(dtype, str):
        if dtype == "auto":
            stored: Any = getattr(config, "dtype", None)
            return stored if device.type == "cuda" and stored in _DTYPES.values() else torch.float32
        if dtype in _DTYPES:
            return _DTYPES[dtype]
    elif not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected a name or a torch dtype, got {dtype!r}")
    elif dtype in _DTYPES.values():
        return dtype
    raise ValueError(f"dtype: expected 'auto' or one of {', '.join(_DTYPES)}, got {dtype!r}")


def _check_attention(
    attention: str, device: torch.device, dtype: torch.dtype, model_class: type
) -> tuple[str | None, str]:
    """The name for transformers (None: its own preference), and why."""
    if not isinstance(attention, str):
        raise TypeError(f"attention: expected one of {', '.join(_ATTENTIONS)}, got {attention!r}")
    if attention not in _ATTENTIONS:
        raise ValueError(f"attention: expected one of {', '.join(_ATTENTIONS)}, got {attention!r}")
    if attention in ("sdpa", "eager"):
        return attention, "asked for"
    obstacle = _flash_obstacle(device, dtype, model_class)
    if attention == "auto":
        return (None, obstacle) if obstacle else ("flash_attention_2", "flash-attn is installed")
    if obstacle:
        raise ValueError(f"attention: 'flash_attention_2' was asked for, but {obstacle}")
    return attention, "asked for"


def _flash_obstacle(device: torch.device, dtype: torch.dtype, model_class: type) -> str:
    """Why flash-attn cannot be used here; empty if it can."""
    if device.type != "cuda":
        return f"flash-attn needs a CUDA device, this is {device.type}"
    if dtype == torch.float32:
        return "flash-attn needs bfloat16 or float16"
    if not getattr(model_class, "_supports_flash_attn", True):
        return f"{model_class.__name__} does not support flash-attn"
    if not is_flash_attn_2_available():
        return "flash-attn is not installed"
    try:
        import_module("flash_attn")
    except ImportError as error:  # built against another torch
        return f"flash-attn is installed but cannot be imported: {error}"
    return ""
