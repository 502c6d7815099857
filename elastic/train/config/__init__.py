"""A training configuration: its tables, which values go together, and which keys have no effect."""

from elastic.train.config.train_config import NO_FLOAT16, TrainConfig, changed_keys

__all__ = ["NO_FLOAT16", "TrainConfig", "changed_keys"]
