"""How often the host waits for the device in an update.

Tensors on the device "meta" have no values: whatever would wait for one, as `.item()`, `.tolist()`, `.cpu()`
or a branch on it, raises. So what runs there to the end waits for nothing.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils

from elastic.models.modes import recompute_activations
from elastic.train.collect.experience import Experience
from elastic.train.config import TrainConfig
from elastic.train.config.updates import LossConfig
from elastic.train.update import policy as policy_module
from elastic.train.update.packing import _padded_inputs, pack
from elastic.train.update.policy import Policy
from elastic.train.update.proof import _PACKS
from elastic.train.update.stats import UpdateStats
from elastic.train.update.transfer import to_device
from elastic.train.update.updates import Updates
from tests.train.tiny_run import build_config, build_model

META = torch.device("meta")


class Waits:
    """Stands for an accelerator whose device is "meta"; counts what a host has to wait for there."""

    def __init__(self, processes: int = 1) -> None:
        from accelerate import Accelerator

        self._cpu = Accelerator(cpu=True)
        self.device, self.num_processes = META, processes
        self.norms = self.reductions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cpu, name)

    def clip_grad_norm_(self, parameters: Any, limit: float) -> Tensor:
        self.norms += 1
        assert all(parameter.grad is not None for parameter in parameters)
        return torch.ones(())

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        self.reductions += 1
        assert (tensor.device, how) == (META, "sum")
        return torch.ones(tensor.shape, dtype=tensor.dtype)


def experience(kept: bool = False) -> Experience:
    """Six rows of three prompts; with kept sets of two ids for each token."""
    lengths = [4, 2, 5, 3, 1, 6]
    values = [torch.zeros(n) for n in lengths]
    return Experience(
        prompts=[[1, 2, 3], [4], [5, 6]],
        prompt_of=[0, 0, 1, 1, 2, 2],
        completions=[torch.zeros(n, dtype=torch.int64) for n in lengths],
        mask=[torch.arange(n) != 1 for n in lengths],
        rollout_logprobs=values,
        advantages=torch.tensor([1.0, -1, 1, -1, 1, -1]),
        old_logprobs=values,
        ref_logprobs=values,
        kept_counts=[torch.full((n,), 2, dtype=torch.int32) for n in lengths] if kept else [],
        kept_ids=[torch.arange(2, dtype=torch.int32).repeat(n) for n in lengths] if kept else [],
    )


def policy(accelerator: Waits, packs: bool = True, recompute: bool = False, **loss: Any) -> Policy:
    model = build_model().to(META)
    _PACKS[model] = packs
    if recompute:
        recompute_activations(model)
    options = {"temperature": 1.0, "max_length": None, "accumulation_steps": 3}
    return Policy(model, accelerator, LossConfig(**loss), **options)


@pytest.fixture(autouse=True)
def others_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose waits are not the trainer's, or not of an update.

    The proof of the head compares values; it runs once, when the trainer is made. transformers looks whether
    a padding mask masks anything; packed rows have none.
    """
    monkeypatch.setattr(policy_module.LinearHead, "_difference", lambda self, model: "")
    monkeypatch.setattr(masking_utils, "fast_all", lambda mask: False)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("linear", ["on", "off"])
def test_no_micro_batch_makes_the_host_wait(linear: str, packs: bool, kept: bool) -> None:
    accelerator, stats = Waits(), UpdateStats()
    trained = policy(
        accelerator, packs, linear=linear, kl_coef=0.1, engine_correction="truncate", old_logprobs="recompute"
    )
    trained.backward(experience(kept), 10, 6, stats)
    assert all(parameter.grad is not None for parameter in trained.model.parameters())
    assert accelerator.norms == accelerator.reductions == 0
    sums = stats.read(accelerator)
    assert all((value == 1).all() for value in sums.values())
    assert {"loss", "tokens", "entropy", "clipped", "kl", "mismatch_histogram"} <= sums.keys()
    assert accelerator.reductions == 1


def test_gradient_checkpointing_does_not_make_the_host_wait() -> None:
    policy(Waits(), recompute=True).backward(experience(), 10, 6, UpdateStats())


def test_a_value_read_on_the_device_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros((), device=META).item()
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        torch.zeros(2, device=META).cpu()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_waits_for_each_gradient_norm_and_for_its_statistics(processes: int, tmp_path: Any) -> None:
    train = {"minibatches": 3, "epochs_per_batch": 2, "accumulation_steps": 2}
    config: TrainConfig = build_config(tmp_path, train=train)
    accelerator = Waits(processes)
    touched: list[bool] = []
    trained = policy(accelerator)
    optimizer: Any = SimpleNamespace(
        param_groups=[{"lr_scale": 1}], zero_grad=lambda: None, step=lambda: None
    )
    updates = Updates(config, accelerator, trained, optimizer, None, lambda: touched.append(True))
    update, metrics = updates.run(experience(), 0, 5)
    assert update == 5 + 6 == 5 + len(touched)
    assert accelerator.norms == 6
    # of the statistics; and of the counts of all minibatches, where another process has rows too
    assert accelerator.reductions == processes
    assert metrics["grad_norm"] == 1


class _Copies(TorchDispatchMode):
    """Notes of each copy to the device whether the host goes on meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == META:
            self.goes_on.append(bool(kwargs.get("non_blocking")))
        return func(*args, **kwargs)


def test_the_host_goes_on_while_a_micro_batch_is_copied() -> None:
    trained, rows = policy(Waits(), kl_coef=0.1), experience(kept=True)
    with _Copies() as copies:
        trained.backward(rows, 10, 6, UpdateStats())
        packed_alone = len(copies.goes_on)
        _padded_inputs(pack(rows.prompts, rows.completions, rows.prompt_of, META))
    assert packed_alone >= 3 * 8
    assert len(copies.goes_on) > packed_alone + 4
    assert all(copies.goes_on)


def test_a_copy_to_the_cpu_is_the_tensor_itself() -> None:
    tensor = torch.zeros(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
    packed = pack([[1, 2]], [torch.tensor([3])], [0])
    assert packed.input_ids.device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "masked", "expected"), [("cpu", 0.0, True), ("cuda", 0.1, False), ("cuda", 0.5, True)]
)
def test_a_gpu_leaves_tokens_out_of_the_head_only_where_many_have_no_loss(
    device: str, masked: float, expected: bool
) -> None:
    rows = experience().select([0])
    row = Experience(
        **{**vars(rows), "completions": [torch.zeros(100)], "mask": [torch.arange(100) >= 100 * masked]}
    )
    assert policy_module._leaves_out(row, torch.device(device)) is expected
