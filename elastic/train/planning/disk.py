"""What a run takes of the disk."""

from dataclasses import dataclass

from elastic.train.config import TrainConfig
from elastic.train.planning.memory import Memory


@dataclass(frozen=True)
class Disk:
    """Bytes, but for the metrics and samples, which are small.

    Attributes:
        saves: checkpoints that are written.
        checkpoint: one of them: weights and the optimizer's state.
        kept: how many there are at a time at most, the one that is being written included.
        models: models beside them: the final one, and the best with the one that replaces it.
        model: one of these; of an adapter that is not merged, the adapter.
    """

    saves: int
    checkpoint: int
    kept: int
    models: int
    model: int

    @property
    def most(self) -> int:
        """All of them together."""
        return self.kept * self.checkpoint + self.models * self.model


def disk_of(config: TrainConfig, memory: Memory, has_adapter: bool) -> Disk:
    """The estimate for a whole run without failures."""
    loop = config.train
    # An adapter's gradients are as many bytes as itself.
    trained = memory.gradients if has_adapter else memory.weights
    saves = -(-loop.steps // loop.save_every) if loop.save_every else 0
    return Disk(
        saves=saves,
        checkpoint=trained + memory.optimizer,
        kept=min(saves, loop.keep_checkpoints + 1),
        models=1 + 2 * (loop.best is not None),
        model=memory.weights if config.adapter.merge else trained,
    )
