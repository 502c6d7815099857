"""Parameter groups: each trained parameter in one, with its share of the rate and its weight decay."""

from typing import Any

import pytest
import torch

from elastic.train.config.optim import OptimConfig
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.parameter_groups import freeze, parameter_groups
from tests.train.tiny_run import build_model, run

LR = 1e-3


def settings(**changes: Any) -> dict[str, tuple[float, float]]:
    """Parameter name -> its rate and its weight decay."""
    model, config = build_model(tie_word_embeddings=False), OptimConfig(lr=LR, **changes)
    freeze(model, config)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, config)
    found = [(name_of[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(found) == len(dict(found))
    assert {name for name, _ in found} == {name for name, p in model.named_parameters() if p.requires_grad}
    return dict(found)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_is_for_matrices_alone(name: str) -> None:
    found = settings(name=name, weight_decay=0.1)
    assert found["model.layers.0.self_attn.q_proj.weight"] == (LR, 0.1)
    assert found["model.layers.0.input_layernorm.weight"] == found["model.norm.weight"] == (LR, 0.0)


def test_the_first_pattern_that_is_found_holds() -> None:
    groups = (("embed_tokens|lm_head", 0.1, 0.0), (r"layers\.1\.", 2.0, 0.3), ("embed", 9.0, 9.0))
    found = settings(weight_decay=0.1, groups=groups)
    assert found["model.embed_tokens.weight"] == found["lm_head.weight"] == (0.1 * LR, 0.0)
    assert found["model.layers.1.mlp.up_proj.weight"] == (2 * LR, 0.3)
    assert found["model.layers.1.input_layernorm.weight"] == (2 * LR, 0.0)
    assert found["model.layers.0.mlp.up_proj.weight"] == (LR, 0.1)


def test_frozen_parameters_are_in_no_group() -> None:
    found = settings(frozen=("embed_tokens", r"layers\.0\."))
    assert not [name for name in found if "embed_tokens" in name or "layers.0." in name]
    assert "model.layers.1.mlp.up_proj.weight" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (("lm_hed", 0.1, 0.0),)}, "optim.groups: 'lm_hed' is found in none .*near it: lm_head"),
        ({"frozen": ("embed_token$",)}, "optim.frozen: 'embed_token.' is found in none .*embed_tokens"),
        ({"frozen": ("xyz",)}, "optim.frozen: 'xyz' .*they are as 'model.embed_tokens.weight'"),
        ({"frozen": ("lm_head",), "groups": (("lm_head", 0.1, 0.0),)}, "optim.groups: 'lm_head' is found in"),
        ({"frozen": ("",)}, "optim.frozen: no parameter is left to train"),
        ({"groups": (("(", 1.0, 0.0),)}, r"optim.groups: '\(' is no regular expression"),
        ({"frozen": ("[",)}, r"optim.frozen: '\[' is no regular expression"),
        (
            {"groups": (("norm", 0.0, 0.0),)},
            "optim.groups: the share of lr must be above 0, got 0 for 'norm'",
        ),
        ({"groups": (("norm", 1.0, -1.0),)}, "optim.groups: the weight decay must be at least 0, got -1"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize("name", ["adamw", "muon", "lion_8bit"])
def test_a_run_moves_parameters_by_their_share_of_the_rate_and_leaves_frozen_ones(
    make_config: Any, name: str
) -> None:
    groups = [["norm", 0.1, 0.0]]
    frozen = ["embed_tokens", r"layers\.0\.mlp"]
    optim = {"name": name, "lr": 1e-2, "groups": groups, "frozen": frozen}
    before = build_model(tie_word_embeddings=False)
    model = build_model(tie_word_embeddings=False)
    trainer = run(make_config(optim=optim, train={"steps": 1}), model=model)
    moves = {
        name: float((new - old).detach().abs().max())
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True)
    }
    still = {name for name, move in moves.items() if move == 0}
    assert still == {name for name in moves if "embed_tokens" in name or "layers.0.mlp" in name}
    # The first step of all three moves vectors by their rate
    for key, move in moves.items():
        if "norm" in key:
            assert move == pytest.approx(1e-3, rel=1e-2), key
    assert {group["lr_scale"] for group in trainer.optimizer.param_groups} == {0.1, 1.0}


def test_muons_groups_are_listed_with_those_of_adamw_and_saved_in_one_numbering() -> None:
    model = build_model(tie_word_embeddings=False)
    config = OptimConfig(name="muon", weight_decay=0.1)
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert [i for group in saved["param_groups"] for i in group["params"]] == list(range(len(parameters)))
    assert len({id(p) for p in parameters}) == len(list(model.parameters()))
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    for index, parameter in enumerate(parameters):
        state, name = optimizer.state[parameter], name_of[id(parameter)]
        assert saved["state"][index].keys() == state.keys()
        assert ("momentum_buffer" in state) == ("proj" in name), name
    again = build_optimizer(build_model(tie_word_embeddings=False), config)
    again.load_state_dict(saved)
    for group, other in zip(optimizer.param_groups, again.param_groups, strict=True):
        for parameter, copy in zip(group["params"], other["params"], strict=True):
            for key, value in optimizer.state[parameter].items():
                assert torch.equal(again.state[copy][key], value)


def test_groups_stay_the_same_where_another_weight_decay_is_that_of_a_row() -> None:
    names = (("embed", 1.0, 0.1),)
    before, after = (
        parameter_groups(build_model(), OptimConfig(groups=names, weight_decay=decay)) for decay in (0.0, 0.1)
    )
    assert [len(group["params"]) for group in before] == [len(group["params"]) for group in after]
    assert len(after) == 3
