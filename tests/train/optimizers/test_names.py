"""Every name makes the optimizer that is meant, and nothing else is taken."""

import importlib.util
import math
from inspect import getdoc
from typing import Any

import pytest
import torch
from torch import nn

from elastic.train.config.optim import OptimConfig
from elastic.train.config.optimizers import OPTIMIZERS
from elastic.train.update.optimizer import build_optimizer
from tests.train.test_train_config import tables
from tests.train.tiny_run import TrainConfig, run

LR = 1e-2
GRADIENT = torch.tensor([[0.5, -2.0], [4.0, 1.0]])
SIGNS = GRADIENT.sign()
# What the first step subtracts from a matrix with this gradient. Adam's mean over deviation is the sign at
# first, so is Lion's; Adafactor's root of the mean squares of row and column is checked by its size alone.
FIRST = {
    "adamw": LR * SIGNS,
    "adamw_8bit": LR * SIGNS,
    "paged_adamw_8bit": LR * SIGNS,
    "paged_adamw_32bit": LR * SIGNS,
    "lion_32bit": LR * SIGNS,
    "lion_8bit": LR * SIGNS,
    "paged_lion_8bit": LR * SIGNS,
    "sgd": LR * GRADIENT,
    "muon": None,
    "adafactor": None,
}


class Layers(nn.Module):
    """An embedding, a hidden layer and a head, all weights 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.hidden = nn.Embedding(2, 2), nn.Linear(2, 2)
        self.head = nn.Linear(2, 2, bias=False)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def first_step(config: OptimConfig) -> dict[str, torch.Tensor]:
    """What the first step subtracts from each parameter; `GRADIENT` is that of matrices."""
    model = Layers()
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = GRADIENT.clone() if parameter.ndim == 2 else GRADIENT[0].clone()
    optimizer.step()
    return {name: 1 - parameter.detach() for name, parameter in model.named_parameters()}


def test_the_page_and_this_file_know_every_name() -> None:
    doc = getdoc(OptimConfig) or ""
    assert [name for name in OPTIMIZERS if f"``{name}``" not in doc] == []
    assert FIRST.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", [name for name, step in FIRST.items() if step is not None])
def test_the_first_step_is_the_optimizers(name: str) -> None:
    steps = first_step(OptimConfig(name=name, lr=LR))
    torch.testing.assert_close(steps["hidden.weight"], FIRST[name], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(steps["hidden.bias"], FIRST[name][0], rtol=1e-3, atol=1e-6)


def test_steps_of_adafactor_are_of_size_lr_whatever_the_weights_are() -> None:
    step = first_step(OptimConfig(name="adafactor", lr=LR))["hidden.weight"]
    assert float(step.square().mean().sqrt()) == pytest.approx(LR, rel=1e-3)
    assert torch.equal(step.sign(), SIGNS)


def test_muon_turns_hidden_matrices_into_rotations_and_leaves_the_rest_to_adamw() -> None:
    steps = first_step(OptimConfig(name="muon", lr=LR))
    for name in ("embed_tokens.weight", "head.weight"):
        torch.testing.assert_close(steps[name], LR * SIGNS, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(steps["hidden.bias"], LR * SIGNS[0], rtol=1e-3, atol=1e-6)
    # The momentum is a multiple of the gradient, whose nearest rotation is scaled to a mean square of 0.2.
    left, _, right = torch.linalg.svd(GRADIENT)
    step = steps["hidden.weight"] / (LR * 0.2 * math.sqrt(2))
    torch.testing.assert_close(step, left @ right, rtol=0, atol=0.4)  # five iterations: factors 0.7 to 1.2
    assert torch.equal(step.sign(), (left @ right).sign())


def test_hyperparameters_are_those_of_the_keys() -> None:
    model = Layers()
    config = OptimConfig(beta1=0.5, beta2=0.6, eps=1e-3, weight_decay=0.3, options=(("amsgrad", True),))
    group = build_optimizer(model, config).param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.6), 1e-3, 0.3)
    assert group["amsgrad"]
    assert group["fused"]
    lion = build_optimizer(model, OptimConfig(name="lion_32bit", beta1=0.5)).param_groups[0]
    assert lion["betas"] == (0.5, 0.99)
    for name, momentum in (("sgd", 0.9), ("muon", 0.95)):
        assert build_optimizer(model, OptimConfig(name=name)).param_groups[0]["momentum"] == momentum
        given = build_optimizer(model, OptimConfig(name=name, momentum=0.7)).param_groups[0]
        assert given["momentum"] == 0.7


def of_mine(groups: Any, lr: float, scale: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr * scale)


def drops_groups(groups: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for group in groups for p in group["params"]], lr=lr)


def has_no_decay(groups: Any, lr: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.Rprop(groups, lr=lr)
    return optimizer


def makes_nothing(groups: Any, lr: float) -> None:
    return None


def test_an_optimizer_by_import_path_gets_rate_and_options() -> None:
    options = (("betas", (0.5, 0.6)), ("decoupled_weight_decay", True))
    model = Layers()
    optimizer = build_optimizer(model, OptimConfig(name="torch.optim:NAdam", lr=LR, options=options))
    assert isinstance(optimizer, torch.optim.NAdam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["decoupled_weight_decay"]) == (LR, (0.5, 0.6), True)
    steps = first_step(OptimConfig(name=f"{__name__}:of_mine", lr=LR))
    torch.testing.assert_close(steps["hidden.weight"], LR * GRADIENT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "adamw_torch"},
            r"unknown optimizer 'adamw_torch'; did you mean .*'adamw'. .known: adamw, ",
        ),
        ({"name": "nadam2"}, r"optim.name: unknown optimizer .*muon; a class or function of yours"),
        ({"options": [["lr", 1.0]]}, "optim.options: 'lr' is given by optim.lr"),
        ({"options": [["betas", [0.9, 0.9]]]}, "'betas' is given by optim.beta1 and optim.beta2"),
        ({"options": [["amsgrad", True], ["amsgrad", False]]}, "'amsgrad' is there twice"),
        ({"options": [["amsgrad", {}]]}, r"optim.options: must be a list of \[text, true or false or"),
        ({"options": [["amsgrd", True]]}, "'adamw' takes no 'amsgrd' .it takes .*amsgrad"),
        ({"name": "torch.optim:"}, "optim.name: unknown optimizer 'torch.optim:'"),
        ({"name": "torch.optims:SGD"}, "optim.name: .* torch.optims cannot be imported: .*No module named"),
        ({"name": "torch.optim:NAdm"}, "optim.name: .* torch.optim has no 'NAdm'; did you mean .*NAdam"),
        ({"name": "nowhere.py:Mine"}, "optim.name: .* nowhere.py cannot be imported: .*no such file"),
        ({"name": "math:pi"}, "which cannot be called"),
        ({"name": "torch.optim:NAdam", "options": [["beta", 1]]}, "'torch.optim:NAdam' takes no 'beta'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_table(tables(optim=changes)).preflight()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": f"{__name__}:drops_groups"}, "must be an optimizer that keeps the 2 parameter groups"),
        ({"name": f"{__name__}:makes_nothing"}, "must be an optimizer .* made NoneType with 0"),
        ({"name": f"{__name__}:has_no_decay", "weight_decay": 0.1}, "optim.weight_decay: must be 0 with"),
        (
            {"options": (("maximize", True), ("foreach", True))},
            "optim.options: 'adamw' cannot be made: .*fus",
        ),
    ],
)
def test_what_only_shows_when_it_is_made_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_optimizer(Layers(), OptimConfig(**changes))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name.endswith("bit")])
def test_without_bitsandbytes_the_extra_is_named(monkeypatch: Any, name: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "elastic.train.config.optimizers.find_spec",
        lambda name: None if name == "bitsandbytes" else find(name),
    )
    with pytest.raises(ModuleNotFoundError, match=r"optim.name: .*pip install 'elastic\[bitsandbytes\]'"):
        TrainConfig.from_table(tables(optim={"name": name})).preflight()
    TrainConfig.from_table(tables()).preflight()


def test_a_run_takes_an_optimizer_by_import_path(make_config: Any) -> None:
    trainer = run(make_config(optim={"name": "torch.optim:NAdam"}, train={"steps": 1}))
    assert isinstance(trainer.optimizer.optimizer, torch.optim.NAdam)
