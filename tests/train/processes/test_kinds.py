"""What accelerate may be set up for, and what is refused by name."""

import pytest
from accelerate.state import AcceleratorState

from elastic.train.run.accelerator import build_accelerator
from elastic.train.run.checks import check_sharded
from tests.train.processes.group import assert_same_weights, ddp, fsdp2, train_two, zero2
from tests.train.tiny_run import build_config, build_model, run


@pytest.mark.parametrize("name", ["FSDP", "DeepSpeed"])
def test_a_kind_that_accelerate_leaves_out_on_the_cpu_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with pytest.raises(ValueError, match=f"set up for {name}, which it leaves out on the CPU"):
            build_accelerator(build_config(tmp_path))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": {"name": "muon"}}, "optim.name: must be one of 'adamw', 'sgd' where processes hold parts"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype: must be 'float32' where processes hold parts"),
    ],
)
def test_what_cannot_be_sharded_is_refused(tmp_path, changes, message):
    model = build_model()
    if "model" in changes:
        model.bfloat16()
    with pytest.raises(ValueError, match=message):
        check_sharded(build_config(tmp_path, **changes), model)


@pytest.mark.parametrize("kind", [fsdp2, zero2])
def test_gradient_that_is_not_finite_ends_both_processes(tmp_path, capfd, kind):
    model = build_model()
    model.model.norm.register_full_backward_hook(lambda module, grads, _: (grads[0] * float("nan"),))
    assert train_two(build_config(tmp_path), kind, model=model) == [1, 1]
    messages = [line for line in capfd.readouterr().err.splitlines() if "the gradient's norm is" in line]
    assert len([line for line in messages if "step 1" in line]) == 2
    names = sorted(path.name for path in (tmp_path / "failed").glob("*.safetensors"))
    assert names == [f"step-00000001-rollouts-process-{rank}.safetensors" for rank in range(2)]


def test_an_adapter_trains_in_two_processes_as_in_one(tmp_path):
    def config(name):
        adapter = {"rank": 4, "merge": True}
        return build_config(tmp_path / name, adapter=adapter, loss={"kl_coef": 0.05}, optim={"eps": 1e-4})

    assert train_two(config("two"), ddp) == [0, 0], "see the captured stderr"
    run(config("one"))
    assert_same_weights(tmp_path / "one", tmp_path / "two")
