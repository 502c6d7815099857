"""The table of a training configuration that says which optimizer takes which steps."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class OptimConfig(Section):
    """``[optim]``: AdamW and its schedule.

    Attributes:
        lr: peak learning rate.
        schedule: after the warm-up: ``constant``, or ``linear`` or ``cosine`` down to ``final_lr``.
        warmup_updates: optimizer steps over which lr rises linearly from lr / warmup_updates.
        final_lr: lr of the last update, as a share of the peak.
        weight_decay: decoupled; not applied to biases and norms.
        beta1: of AdamW.
        beta2: of AdamW.
        eps: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 for off.
    """

    TABLE: ClassVar[str] = "optim"

    lr: float = limited(1e-6, above=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_updates: int = limited(0, low=0)
    final_lr: float = limited(0.0, low=0, high=1)
    weight_decay: float = limited(0.0, low=0)
    beta1: float = limited(0.9, low=0, high=0.999999)
    beta2: float = limited(0.999, low=0, high=0.999999)
    eps: float = limited(1e-8, above=0)
    max_grad_norm: float = limited(1.0, low=0)
