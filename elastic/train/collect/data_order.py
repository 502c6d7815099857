"""Which problems a step takes: seeded epochs, a function of the position alone."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from elastic.train.collect.seeds import RandomStream, generator

T = TypeVar("T")


class DataOrder(Generic[T]):
    """An endless sequence over the items, each exactly once per epoch.

    Args:
        items: at least one.
        seed: of the shuffling.
        shuffle: False for the items' own order in every epoch.

    Raises:
        ValueError: no items.
    """

    def __init__(self, items: Sequence[T], seed: int, shuffle: bool = True) -> None:
        if not items:
            raise ValueError("data: there must be at least one problem")
        self._items = items
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = -1
        self._order: list[int] = []

    def take(self, position: int, count: int) -> list[T]:
        """The items at ``position .. position + count - 1`` of the endless sequence."""
        return [self._at(index) for index in range(position, position + count)]

    def epoch(self, position: int) -> float:
        """Epochs done at a position."""
        return position / len(self._items)

    def _at(self, position: int) -> T:
        epoch, index = divmod(position, len(self._items))
        if epoch != self._epoch:
            self._order = list(range(len(self._items)))
            if self._shuffle:
                generator(self._seed, RandomStream.ORDER, epoch).shuffle(self._order)
            self._epoch = epoch
        return self._items[self._order[index]]
