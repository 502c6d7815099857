"""Which kernel attends in updates: one of FlashAttention by lengths where it is there, else SDPA.

A kernel is used only after a trial: on a few sequences of the model's own head sizes it must give what the
definition gives, forward and backward. Builds differ in what they can, and old ones align the causal mask at
the first query.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elastic.models.probe import reason_of
from elastic.models.serving import evaluating
from elastic.rollout.attention.flash import flash_packages, kernel
from elastic.rollout.attention.windows import SLIDING, declared_windows
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.proof import packs
from elastic.train.update.tree import switched
from elastic.train.update.varlen import Sequences, VarlenKernel, plain_varlen

_VARLEN = "flash_attn_varlen_func"
_NARROW = (torch.bfloat16, torch.float16)
_MOST_ERROR = 0.03  # of the largest entry; bfloat16 rounds to 0.004, another alignment of the mask makes 0.3
_QUERIES, _KEYS = (3, 9, 70), (8, 9, 140)  # tokens of the trial's sequences
_WINDOW = 20  # its window, where a model has one


class Shape(NamedTuple):
    """What a layer attends with.

    Attributes:
        heads: of queries.
        key_heads: of keys and values.
        width: of a query or key.
        value_width: of a value.
        windowed: whether a query sees the last keys only.
    """

    heads: int
    key_heads: int
    width: int
    value_width: int
    windowed: bool


class Choice(NamedTuple):
    """The attention of a run's updates.

    Attributes:
        kernel: attends by lengths; None for SDPA, or for the model's own attention over padded rows.
        text: what was chosen and why.
    """

    kernel: VarlenKernel | None
    text: str


def computing_dtype(accelerator: Any, model: Any) -> torch.dtype:
    """What a model's updates compute attention in: autocast's dtype, or the weights'."""
    if accelerator.mixed_precision == "bf16":
        return torch.bfloat16
    dtype: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    return dtype


def choose_attention(wanted: str, model: Any, dtype: torch.dtype) -> Choice:
    """Finds the attention of a run's updates.

    Args:
        wanted: ``auto``, ``flash`` or ``sdpa``.
        model: unwrapped, on its device.
        dtype: that updates compute in.

    Raises:
        ValueError: ``flash``, and it cannot be; says why.
    """
    if not packs(model):
        found = Choice(None, "the model's own over padded rows")
        obstacle = "the model's rows are padded (docs/models.md)"
    elif wanted == "sdpa":
        return Choice(None, "SDPA (asked for)")
    else:
        found, obstacle = _first_that_works(model, dtype)
    if wanted == "flash" and found.kernel is None:
        raise ValueError(f"train.attention: 'flash' was asked for, but {obstacle}")
    return found


def _first_that_works(model: Any, dtype: torch.dtype) -> tuple[Choice, str]:
    device = _device(model)
    if device.type != "cuda":
        obstacle = f"it needs a CUDA device, this is {device.type}"
    elif dtype not in _NARROW:
        obstacle = f"it needs 16-bit computation (train.mixed_precision = 'bf16'), not {dtype}"
    else:
        kernels, obstacle = _kernels(device)
        shapes = shapes_of(model)
        for name, function in kernels.items():
            fault = next((text for shape in shapes if (text := fault_of(function, shape, device, dtype))), "")
            if not fault:
                return Choice(function, f"{name}, by lengths"), ""
            obstacle += f"; {name}: {fault}"
    obstacle = obstacle.removeprefix("; ")
    return Choice(None, f"SDPA (flash: {obstacle})"), obstacle


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _kernels(device: torch.device) -> tuple[dict[str, VarlenKernel], str]:
    """Kernels to try by what they are called, best first; and what is wrong with others."""
    packages, wrong = flash_packages(device, _VARLEN)
    found = {name: _of_package(kernel(module, _VARLEN)) for module, name in packages.items()}
    with suppress(ImportError):
        from torch.nn.attention import varlen

        if "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters:
            found["torch's FlashAttention"] = _of_torch(varlen.varlen_attn)
        else:
            wrong += f"; torch {torch.__version__} has none that shares keys among heads (2.12 has)"
    return found, wrong


def _of_package(function: Callable[..., Any]) -> VarlenKernel:
    """flash-attn's, of FlashAttention 2 or 3; some builds give the normalisers too."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sequences: Sequences,
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        before = (-1, -1) if window is None else (window - 1, 0)  # keys in front of a query's own, behind it
        out = function(query, key, value, *sequences, softmax_scale=scale, causal=True, window_size=before)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    return attend


def _of_torch(function: Callable[..., Any]) -> VarlenKernel:
    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sequences: Sequences,
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        shared = query.shape[1] != key.shape[1]
        # Keys in front of a query's own and behind it: with none behind it is the causal mask.
        seen = (-1 if window is None else window - 1, 0)
        out: Tensor = function(
            query, key, value, *sequences, scale=scale, window_size=seen, enable_gqa=shared
        )
        return out

    return attend


def shapes_of(model: Any) -> set[Shape]:
    """What the layers of a model whose rows are packed attend with; runs it on a few tokens."""
    shapes: set[Shape] = set()

    def notes(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sequences: Sequences,
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        sizes = (query.shape[1], key.shape[1], query.shape[2], value.shape[2])
        shapes.update(Shape(*sizes, windowed) for windowed in {False, slides})
        return plain_varlen(query, key, value, sequences, scale, window)

    slides = SLIDING in declared_windows(model.config.get_text_config(decoder=True))
    with torch.no_grad(), switched(model), evaluating(model):
        packed_logits(model, pack([[0, 1]], [torch.tensor([1, 0])], [0], model.device, notes))
    return shapes


def fault_of(function: VarlenKernel, shape: Shape, device: torch.device, dtype: torch.dtype) -> str:
    """What is wrong with a kernel at a shape, in words; empty for nothing."""
    generator = torch.Generator().manual_seed(0)
    offsets = [torch.tensor([0, *n]).cumsum(0).int() for n in (_QUERIES, _KEYS)]
    sequences = Sequences(offsets[0].to(device), offsets[1].to(device), max(_QUERIES), max(_KEYS))
    sizes = [(sum(_QUERIES), shape.heads, shape.width), (sum(_KEYS), shape.key_heads, shape.width)]
    sizes.append((sum(_KEYS), shape.key_heads, shape.value_width))
    inputs = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]
    given = (sequences, None, _WINDOW if shape.windowed else None)
    try:
        found = _result_and_gradients(function, inputs, given)
    except Exception as failure:
        return reason_of(failure)
    expected = _result_and_gradients(plain_varlen, [x.float() for x in inputs], given)
    for name, value, wanted in zip(("result", "queries", "keys", "values"), found, expected, strict=True):
        error = ((value.float() - wanted).abs().max() / wanted.abs().max()).item()
        if not error < _MOST_ERROR:  # NaN is not less
            what = "its result" if name == "result" else f"its gradient of {name}"
            return f"{what} is off by {error:.2g} of the largest entry, more than {_MOST_ERROR}"
    return ""


def _result_and_gradients(function: Any, inputs: list[Tensor], given: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        out = function(*leaves, *given)
        weights = torch.linspace(-1, 2, out.numel(), device=out.device).view_as(out)
        return [out.detach(), *torch.autograd.grad((out.float() * weights).sum(), leaves)]
