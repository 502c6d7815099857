"""A run that is stopped and started again ends as one that was not, whatever its optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elastic.train.config.optimizers import OPTIMIZERS
from tests.train.tiny_run import build_config, build_model, run


class Shrinking(torch.optim.SGD):
    """Keeps state in its groups, as Prodigy does: its steps get smaller by the number of those before."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__([{"taken": 0, **group} for group in params], lr=lr)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["taken"] += 1
            group["lr"] *= 1000 / group["taken"]
        super().step()


BITS = (["min_8bit_size", 64],)  # so that the small matrices have 8-bit states, too

OWN = f"{__name__}:Shrinking"


def trained(output: Path, steps: int, dtype: torch.dtype, optim: dict[str, Any]) -> dict[str, torch.Tensor]:
    optim = {"lr": 1e-3, "schedule": "inverse_sqrt", "warmup_updates": 2, "weight_decay": 0.1, **optim}
    rollout = {"prompts_per_step": 2, "samples_per_prompt": 4}
    config = build_config(output, train={"steps": steps, "save_every": 1}, optim=optim, rollout=rollout)
    run(config, model=build_model().to(dtype))
    return load_file(output / "final" / "model.safetensors")


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in (*OPTIMIZERS, "torch.optim:RAdam", OWN)),
        # Masters are stored alike for all
        *((name, torch.bfloat16) for name in ("adamw", "muon", "adamw_8bit", "adafactor", OWN)),
    ],
)
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    optim = {"name": name, "options": BITS if name.endswith("8bit") else ()}
    whole = trained(tmp_path / "whole", 2, dtype, optim)
    trained(tmp_path / "parts", 1, dtype, optim)
    parts = trained(tmp_path / "parts", 2, dtype, optim)
    assert whole.keys() == parts.keys()
    for key, tensor in whole.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, parts[key]), key
    saved = tmp_path / "parts" / "checkpoints" / "step-00000002" / "optimizer.pt"
    assert ("master" in str(torch.load(saved, weights_only=True))) == (dtype == torch.bfloat16)


@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_another_optimizer_is_another_run(tmp_path: Path) -> None:
    trained(tmp_path, 1, torch.float32, {})
    with pytest.raises(ValueError, match=r"optim.name: 'adamw' -> 'paged_adamw_8bit'"):
        trained(tmp_path, 2, torch.float32, {"name": "paged_adamw_8bit"})
