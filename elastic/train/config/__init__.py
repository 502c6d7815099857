"""A training configuration: its tables, which values go together, and which keys have no effect."""

from elastic.train.config.train_config import WIDER, TrainConfig, changed_keys

__all__ = ["WIDER", "TrainConfig", "changed_keys"]
