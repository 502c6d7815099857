"""Fingerprints of what a run works on, so that it is not resumed on something else.

The configuration alone is not enough: the content of the files and models that it names may change, and a
`Trainer` is given objects that it does not name.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from elastic.data import Problem
from elastic.models.fingerprint import digest, weights_digest

Tensors = Iterable[tuple[str, Tensor]]

TRAINING, EVALUATION, TOKENIZER, REFERENCE, BASE, SHAPES = (
    *("training problems", "evaluation problems", "tokenizer"),
    *("reference model", "base model", "shapes of the model's weights"),
)


def identity(
    dataset: Sequence[Problem],
    eval_dataset: Sequence[Problem],
    tokenizer: Any,
    shapes: str,
    reference: Tensors | None = None,
    base: Tensors | None = None,
) -> dict[str, str]:
    """SHA-256 digests, by name, of what must be the same after a resumption.

    The starting model is among it only as the reference of the KL and as the base of an adapter: trained
    weights come from the checkpoint.

    Args:
        dataset: training problems, in order.
        eval_dataset: evaluated ones; empty for none.
        tokenizer: with its chat template.
        shapes: `shapes_of` the starting model.
        reference: tensors of the KL's reference; None without one.
        base: tensors below an adapter; None without one.
    """
    found = _problems(TRAINING, dataset) | {TOKENIZER: _tokenizer(tokenizer), SHAPES: shapes}
    if eval_dataset:
        found |= _problems(EVALUATION, eval_dataset)
    if reference is not None:
        found[REFERENCE] = weights_digest(reference)
    if base is not None:
        found[BASE] = weights_digest(base)
    return found


def shapes_of(model: nn.Module) -> str:
    """SHA-256 of names and shapes of a model's parameters; call before processes share them out."""
    return digest(f"{name} {tuple(p.shape)}".encode() for name, p in model.named_parameters())


def _problems(name: str, problems: Sequence[Problem]) -> dict[str, str]:
    """Of problems, and of each column: other reward functions may keep others."""

    def texts(problem: Problem) -> Iterable[str]:
        yield from (problem.prompt, problem.answer, problem.id, *map(repr, problem.tests))

    found = {name: digest(text.encode() for problem in problems for text in texts(problem))}
    for column in sorted({column for problem in problems for column in problem.columns}):
        values = (repr(problem.columns.get(column)) for problem in problems)
        found[f"{name} (column '{column}')"] = digest(value.encode() for value in values)
    return found


def _tokenizer(tokenizer: Any) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    rest = [getattr(tokenizer, "chat_template", None), getattr(tokenizer, "special_tokens_map", None)]
    return digest([json.dumps(vocabulary).encode(), json.dumps(rest, default=str).encode()])
