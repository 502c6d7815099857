"""The operands of the language-model head, for the ops that start from hidden states."""

from torch import Tensor

from elastic.ops._autograd import refuse_transforms
from elastic.ops._inputs import as_autocast, check_tensor, checked, integer


def head_operands(
    op: str, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states [N, H], weight [V, H] and bias [V], cast under autocast as F.linear's are.

    Raises:
        TypeError: not tensors.
        ValueError: weight or bias is on another device than hidden.
        RuntimeError: a derivative is wanted that does not exist.
    """
    check_tensor(op, "hidden", hidden, hidden)
    check_tensor(op, "weight", weight, hidden)
    if bias is not None:
        bias = checked(op, "bias", bias, hidden)
    refuse_transforms(op, hidden, weight, bias)
    return as_autocast(hidden), as_autocast(weight), None if bias is None else as_autocast(bias)


def chunk_size(op: str, chunk_tokens: int | None) -> int | None:
    """Tokens per chunk; None leaves them to the op (csrc/head/chunk_size.h)."""
    return None if chunk_tokens is None else integer(op, "chunk_tokens", chunk_tokens)
