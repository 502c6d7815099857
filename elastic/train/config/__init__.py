"""A training configuration: its tables, what goes together, and what has no effect. Runs nothing."""

from elastic.train.config.train_config import WIDER, TrainConfig, changed_keys

__all__ = ["WIDER", "TrainConfig", "changed_keys"]
