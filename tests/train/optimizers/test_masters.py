"""bfloat16 weights are trained through float32 masters, which lose neither steps nor gradients."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from elastic.models.tiny import problems
from elastic.train.config.optim import OptimConfig
from elastic.train.update.masters import MasterWeights, masters_of
from elastic.train.update.optimizer import build_optimizer
from tests import forked
from tests.train.tiny_run import build_config, build_model, lines, run, shared_out

ALONE: Any = SimpleNamespace(num_processes=1, no_sync=lambda model: torch.enable_grad())


class Pair(nn.Module):
    """A bfloat16 and a float32 weight of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
        self.wide = nn.Parameter(torch.tensor([3.0, 4.0]))

    def get_output_embeddings(self) -> None:
        return None


def pair(**config: Any) -> tuple[Pair, MasterWeights]:
    model = Pair()
    optimizer = build_optimizer(model, OptimConfig(**config))
    assert isinstance(optimizer, MasterWeights)
    return model, optimizer


def test_steps_too_small_for_the_weight_add_up_in_its_master() -> None:
    model, optimizer = pair(name="sgd", momentum=0.0, lr=1e-3)
    master, wide = optimizer.tensors
    assert wide is model.wide
    moved = []
    for _ in range(4):
        master.grad, wide.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
        moved.append(bool((model.narrow != torch.tensor([1.0, -2.0])).any()))
    torch.testing.assert_close(master, torch.tensor([0.996, -2.004]))
    # 1 is 2^-8 = 0.0039 above its lower neighbour: the second step passes half of that
    assert moved == [False, True, True, True]
    assert torch.equal(model.narrow, master.bfloat16())
    torch.testing.assert_close(model.wide.detach(), torch.tensor([2.996, 3.996]))


def test_gradients_of_micro_batches_are_summed_in_float32_and_dropped_at_once() -> None:
    model, optimizer = pair()
    master, wide = optimizer.tensors
    with optimizer.gathering(ALONE, model):
        for factor in (256.0, 1.0, 1.0):  # in bfloat16 256 + 1 is 256
            (factor * (model.narrow.float().sum() + model.wide.sum())).backward()
            assert model.narrow.grad is None
    assert master.grad is not None
    assert wide.grad is not None
    assert master.grad.tolist() == wide.grad.tolist() == [258.0, 258.0]
    assert master.grad.dtype == torch.float32
    optimizer.zero_grad()
    assert master.grad is wide.grad is None


def test_outside_the_block_gradients_are_the_weights_own() -> None:
    model, optimizer = pair()
    with pytest.raises(KeyError), optimizer.gathering(ALONE, model):
        raise KeyError
    model.narrow.float().sum().backward()
    assert model.narrow.grad is not None
    assert optimizer.tensors[0].grad is None


def test_only_one_16_bit_gradient_is_there_at_a_time() -> None:
    model = build_model(tie_word_embeddings=False).bfloat16()
    optimizer = build_optimizer(model, OptimConfig())
    assert isinstance(optimizer, MasterWeights)
    most = 0

    def count(*_: Any) -> None:
        nonlocal most
        most = max(most, sum(p.grad is not None for p in model.parameters()))

    with optimizer.gathering(ALONE, model):
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(count)
        model(torch.zeros(1, 4, dtype=torch.int64)).logits.float().sum().backward()
    assert most <= 1


def test_bytes_of_a_weight_are_2_and_4_of_the_master_4_of_the_gradient_and_8_of_adamw(
    make_config: Any,
) -> None:
    model = build_model().bfloat16()
    trainer = run(make_config(train={"steps": 1}), model=model)
    masters = masters_of(trainer.optimizer)
    assert masters is not None
    count = sum(parameter.numel() for parameter in model.parameters())
    state = [value for values in masters.state_dict()["state"].values() for value in values.values()]
    tensors = {id(tensor): tensor.nbytes for tensor in state if tensor.ndim}
    assert sum(parameter.nbytes for parameter in model.parameters()) == 2 * count
    assert sum(tensors.values()) == (4 + 8) * count
    gradients = [tensor.grad for tensor in masters.tensors if tensor.grad is not None]
    assert sum(gradient.nbytes for gradient in gradients) == 4 * count
    assert all(parameter.grad is None for parameter in model.parameters())


def test_at_a_rate_of_1e_6_masters_move_though_weights_do_not_yet(make_config: Any) -> None:
    model, start = build_model().bfloat16(), build_model().bfloat16()
    trainer = run(make_config(optim={"lr": 1e-6}, train={"steps": 2}), model=model)
    masters = masters_of(trainer.optimizer)
    assert masters is not None
    weights = [p for group in masters.param_groups for p in group["params"]]
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    before = dict(start.named_parameters())
    still = moved = 0
    for weight, master in zip(weights, masters.tensors, strict=True):
        old = before[name_of[id(weight)]].detach()
        assert torch.equal(weight, master.bfloat16())
        same = weight == old
        still += int(same.sum())
        moved += int((same & (master != old.float())).sum())
    assert still > 0.9 * sum(weight.numel() for weight in weights)
    assert moved > 0.9 * still


def test_rollouts_run_on_the_trained_weights_themselves(make_config: Any) -> None:
    model = build_model().bfloat16()
    trainer = run(make_config(train={"steps": 1}), model=model)
    assert trainer._collector._engine.model is model
    final = load_file(Path(trainer.config.train.output_dir) / "final" / "model.safetensors")
    assert {tensor.dtype for tensor in final.values()} == {torch.bfloat16}


def test_a_state_without_masters_leaves_the_weights_as_they_were_read() -> None:
    """A checkpoint of float32 weights has none; masters of the starting model must not come back."""
    model, optimizer = pair(name="sgd")
    with torch.no_grad():
        model.narrow.copy_(torch.tensor([5.0, 6.0]))
    optimizer.load_state_dict({"state": {}, "param_groups": optimizer.state_dict()["param_groups"]})
    assert model.narrow.tolist() == [5.0, 6.0]
    assert optimizer.tensors[0].tolist() == [5.0, 6.0]


def test_a_second_trainer_of_a_model_has_masters_of_its_own(tmp_path: Path) -> None:
    """Hooks of the first one must not take its gradients."""
    fresh = run(build_config(tmp_path / "fresh"), model=build_model().bfloat16())
    model = build_model().bfloat16()
    first = run(build_config(tmp_path / "first"), model=model)
    model.load_state_dict(build_model().bfloat16().state_dict())
    second = run(build_config(tmp_path / "second"), model=model)
    assert first.optimizer is not second.optimizer
    for one, other in zip(fresh.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_gradients_norm_is_that_of_float32_weights_however_rows_are_divided(tmp_path: Path) -> None:
    norms = []
    for name, dtype, parts in (("a", torch.float32, 1), ("b", torch.bfloat16, 1), ("c", torch.bfloat16, 8)):
        config = build_config(tmp_path / name, train={"steps": 1, "accumulation_steps": parts})
        run(config, model=build_model().to(dtype))
        norms.append(lines(tmp_path / name / "metrics.jsonl")[0]["grad_norm"])
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=2e-2)


@pytest.mark.usefixtures("own_accelerate_state")
def test_float32_autocast_and_bfloat16_weights_learn_alike(tmp_path: Path) -> None:
    ends = {}
    for kind, dtype, precision in (
        ("float32", torch.float32, "no"),
        ("autocast", torch.float32, "bf16"),
        ("masters", torch.bfloat16, "no"),
    ):
        config = build_config(
            tmp_path / kind,
            train={"steps": 12, "mixed_precision": precision},
            optim={"name": "sgd", "lr": 0.5},
        )
        run(config, model=build_model().to(dtype))
        rewards = [record["reward"] for record in lines(tmp_path / kind / "metrics.jsonl")]
        assert rewards[0] < 0.15
        ends[kind] = sum(rewards[-3:]) / 3
    assert min(ends.values()) > 0.7, ends


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    def work(name: str) -> None:
        # A first step whose direction is the gradient's, not its signs, which rounding may turn
        config = shared_out(tmp_path / name)
        config = replace(config, optim=OptimConfig(name="sgd", lr=0.5), train=replace(config.train, steps=1))
        trainer = run(config, eval_dataset=problems(4, split="test"), model=build_model().bfloat16())
        assert all(parameter.grad is None for parameter in trainer.model.parameters())

    port = forked.free_port()
    children = [forked.fork(rank, port, lambda: work("two")) for rank in range(2)]
    assert [forked.status(child) for child in children] == [0, 0], "see the captured stderr"
    work("one")
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    start = build_model().bfloat16().state_dict()
    changes = [torch.cat([(w[k].float() - start[k].float()).flatten() for k in one]) for w in (one, two)]
    assert float((changes[0] - changes[1]).norm()) < 0.05 * float(changes[0].norm())
    records = [record for name in ("one", "two") for record in lines(tmp_path / name / "metrics.jsonl")]
    norms = [record["grad_norm"] for record in records if "grad_norm" in record]
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)
