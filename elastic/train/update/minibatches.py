"""A rollout batch in parts, one for each optimizer step."""

from collections.abc import Callable, Sequence
from itertools import pairwise


def minibatches(
    prompt_of: Sequence[int], count: int, shuffle: Callable[[list[int]], None] | None = None
) -> list[list[int]]:
    """Splits rows into minibatches of whole groups.

    Args:
        prompt_of: [R] the group of each row; K groups.
        count: at most K.
        shuffle: shuffles a list in place, here the groups; None keeps their order.

    Returns:
        The rows of each minibatch.
    """
    if count == 1:
        return [list(range(len(prompt_of)))]
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(prompt_of):
        groups.setdefault(group, []).append(row)
    order = list(groups)
    if shuffle is not None:
        shuffle(order)
    bounds = [len(order) * index // count for index in range(count + 1)]
    return [[row for group in order[start:end] for row in groups[group]] for start, end in pairwise(bounds)]
