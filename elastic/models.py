"""Loading Hugging Face causal language models, with every choice checked first and said aloud."""

import os
import sys
from importlib import import_module
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_flash_attn_2_available

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ATTENTIONS = ("auto", "flash_attention_2", "sdpa", "eager")
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


def load_model(
    path: str | os.PathLike,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    attention: str = "auto",
    allow_missing: bool = False,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, ready for inference.

    Args:
        path: a local directory as `save_pretrained` writes it, or a Hugging Face hub id.
        dtype: "float32", "bfloat16", "float16" (or the torch dtype); "auto" takes the checkpoint's on CUDA
            and float32 on the CPU, where decoding in bfloat16 takes twice the time.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes CUDA where torch sees a device.
        attention: "flash_attention_2", "sdpa" or "eager"; "auto" takes flash-attn where it is installed, the
            device is CUDA, the dtype is 16 bits wide and the model supports it, else what transformers
            prefers for the model (SDPA where supported). The choice is printed to stderr in one line.
        allow_missing: take a checkpoint that lacks weights of the model, which are then random, or that has
            others that the model does not know, which are then left out; said on stderr.

    Returns:
        (model, tokenizer); the model in eval mode on its device.

    Raises:
        TypeError: dtype or attention that is no name.
        ValueError: an unknown or unavailable choice, a missing directory, config.json or tokenizer, a model
            that is no causal language model; all of it before weights are read. Then: weights that cannot be
            read, that have other shapes than the model's, or that are missing or unknown, naming the first.
    """
    device = _check_device(device)
    _check_directory(path)
    config = AutoConfig.from_pretrained(path)
    model_class = _check_causal(path, config)
    dtype = _check_dtype(dtype, device, config)
    implementation, reason = _check_attention(attention, device, dtype, model_class)
    tokenizer = AutoTokenizer.from_pretrained(path)
    if len(tokenizer) == 0:
        raise ValueError(f"path: the tokenizer of {os.fspath(path)!r} is empty")
    model = _load_weights(path, allow_missing, config=config, dtype=dtype, attn_implementation=implementation)
    torch.nn.Module.to(model, device).eval()
    what = f"{model.config.model_type}, {str(dtype).removeprefix('torch.')} on {device}"
    attention = f"{model.config._attn_implementation} ({reason})"
    print(f"elastic: {os.fspath(path)}: {what}, attention {attention}", file=sys.stderr)
    return model, tokenizer


def _load_weights(path: str | os.PathLike, allow_missing: bool, **options: Any) -> Any:
    """The model, its weights all from the checkpoint; transformers leaves others random and goes on."""
    name = repr(os.fspath(path))
    loader: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = loader(path, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except SafetensorError as error:
        raise ValueError(f"path: the weights of {name} are damaged: {error}") from error
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
    if problems:
        what = f"{name} {'; and '.join(problems)}"
        if not allow_missing:
            raise ValueError(f"path: {what} (allow_missing=True takes it as it is)")
        print(f"elastic: {what}", file=sys.stderr)
    return model


def _first(names: list[str]) -> str:
    """The first few of many."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shape(sizes: Any) -> str:
    return " x ".join(str(size) for size in sizes)


def _check_device(device: str | torch.device) -> torch.device:
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


def _check_directory(path: str | os.PathLike) -> None:
    """Refuse a local directory that transformers would misread, or report badly."""
    text = os.fspath(path)
    looks_local = text.startswith((os.sep, ".", "~")) or text.count("/") > 1 or not isinstance(path, str)
    if not os.path.isdir(path):
        if looks_local or os.path.exists(path):
            raise ValueError(f"path: no such directory: {text!r}")
        return  # a hub id: transformers resolves it
    files = set(os.listdir(path))
    if "config.json" not in files:
        raise ValueError(f"path: {text!r} holds no config.json, so it is no Hugging Face model directory")
    if not files.intersection(_TOKENIZER_FILES):
        raise ValueError(
            f"path: {text!r} holds no tokenizer (one of {', '.join(_TOKENIZER_FILES)}); "
            "save the model's tokenizer there with tokenizer.save_pretrained"
        )


def _check_causal(path: str | os.PathLike, config: Any) -> type:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"path: {os.fspath(path)!r} is an encoder-decoder model ({config.model_type}); "
            "only causal (decoder-only) language models can be served"
        )
    remote_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    if not remote_code and type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"path: {os.fspath(path)!r}: {config.model_type} has no causal language model")
    if remote_code:
        return object
    known: Any = AutoModelForCausalLM._model_mapping[type(config)]
    return known


def _check_dtype(dtype: str | torch.dtype, device: torch.device, config: Any) -> torch.dtype:
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
