"""The attention that training runs under: tree attention over packed rows where the model allows it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from elastic.models.serving import exclusive
from elastic.train.update.layout import TreeLayout
from elastic.train.update.proof import packs
from elastic.train.update.tree import TREE_ATTENTION, switched, tree_attention

__all__ = ["TREE_ATTENTION", "TreeLayout", "tree_attention", "tree_attention_of"]


@contextmanager
def tree_attention_of(model: nn.Module) -> Iterator[None]:
    """Within the block, `packed_logits` and `packed_hidden` give every row what it would get alone.

    Sets `model`'s attention implementation to the tree attention, or leaves its own where rows have to be
    padded; the first call finds out which (`proof.packs`). The block must enclose the backward pass too:
    gradient checkpointing runs the forward again there. Within the block other threads cannot use the model;
    behind it the model has its own implementation again.

    Args:
        model: unwrapped.

    Raises:
        ValueError: the model can be trained neither packed nor padded; says why.
    """
    with exclusive(model):
        if packs(model):
            with switched(model):
                yield
        else:
            yield
