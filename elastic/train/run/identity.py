"""Fingerprints of what a run works on, so that it is not resumed on something else.

The configuration alone is not enough: the content of the files and models that it names may change, and a
`Trainer` is given objects that it does not name.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from elastic.data import Problem

_SAMPLED_VALUES = 256  # of each tensor: hashing a model of 7 billion weights whole would take a minute

TRAINING, EVALUATION, TOKENIZER, REFERENCE, SHAPES = (
    *("training problems", "evaluation problems"),
    *("tokenizer", "reference model", "shapes of the model's weights"),
)


def identity(
    dataset: Sequence[Problem],
    eval_dataset: Sequence[Problem],
    tokenizer: Any,
    reference: nn.Module | None,
    shapes: str,
) -> dict[str, str]:
    """SHA-256 digests, by name, of what must be the same after a resumption.

    The starting model is among it only as the reference of the KL: trained weights come from the checkpoint.

    Args:
        dataset: training problems, in order.
        eval_dataset: evaluated ones; empty for none.
        tokenizer: with its chat template.
        reference: frozen copy of the starting model; None without one.
        shapes: `shapes_of` the starting model.
    """
    found = {TRAINING: _problems(dataset), TOKENIZER: _tokenizer(tokenizer), SHAPES: shapes}
    if eval_dataset:
        found[EVALUATION] = _problems(eval_dataset)
    if reference is not None:
        found[REFERENCE] = _weights(reference)
    return found


def shapes_of(model: nn.Module) -> str:
    """SHA-256 of names and shapes of a model's parameters; call before processes share them out."""
    return _digest(f"{name} {tuple(p.shape)}".encode() for name, p in model.named_parameters())


def _digest(parts: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))  # else ("a", "bc") and ("ab", "c") would be the same
        sha.update(part)
    return sha.hexdigest()


def _problems(problems: Sequence[Problem]) -> str:
    def texts(problem: Problem) -> Iterable[str]:
        yield from (problem.prompt, problem.answer, problem.id, *map(repr, problem.tests))
        yield from (repr(column) for column in sorted(problem.columns.items()))

    return _digest(text.encode() for problem in problems for text in texts(problem))


def _tokenizer(tokenizer: Any) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    rest = [getattr(tokenizer, "chat_template", None), getattr(tokenizer, "special_tokens_map", None)]
    return _digest([json.dumps(vocabulary).encode(), json.dumps(rest, default=str).encode()])


def _weights(model: nn.Module) -> str:
    """Names, shapes and evenly spaced values."""

    def parts() -> Iterable[bytes]:
        for name, weight in model.state_dict().items():
            flat = weight.detach().flatten()
            count = min(_SAMPLED_VALUES, flat.numel())
            index = torch.linspace(0, max(flat.numel() - 1, 0), count, dtype=torch.float64).long()
            values = flat[index.to(flat.device)].double().cpu()
            yield from (name.encode(), str(tuple(weight.shape)).encode(), values.numpy().tobytes())

    return _digest(parts())
