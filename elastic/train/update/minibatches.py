"""A rollout batch in parts, one for each optimizer step."""

from collections.abc import Callable
from itertools import pairwise

from elastic.train.collect.experience import Experience


def minibatches(
    experience: Experience, count: int, shuffle: Callable[[list[int]], None] | None = None
) -> list[Experience]:
    """Splits rows into minibatches of whole groups.

    Args:
        experience: K groups.
        count: at most K.
        shuffle: shuffles a list in place, here the groups; None keeps their order.
    """
    if count == 1:
        return [experience]
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(experience.prompt_of):
        groups.setdefault(group, []).append(row)
    order = list(groups)
    if shuffle is not None:
        shuffle(order)
    bounds = [len(order) * index // count for index in range(count + 1)]
    chosen = [order[start:end] for start, end in pairwise(bounds)]
    return [experience.select([row for group in part for row in groups[group]]) for part in chosen]
