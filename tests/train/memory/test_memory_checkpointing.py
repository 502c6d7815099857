"""Gradient checkpointing and offloading: the same gradients, less memory.

The reference is the same call of `Policy.backward` with neither.
"""

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from elastic.models.modes import recompute_activations
from elastic.models.offload import Offload
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.planning.peak import PeakMemory
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.stats import UpdateStats
from tests.train.tiny_run import build_config, run

LAYERS = 4
SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": LAYERS, "max_position_embeddings": 256}
HEADS = {"num_attention_heads": 4, "intermediate_size": 64}
MODELS: dict[str, Any] = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, **HEADS, num_key_value_heads=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, **HEADS, num_key_value_heads=2, head_dim=8)),
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(**SIZES, **HEADS, num_key_value_heads=2, num_local_experts=4)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=96, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=256)
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SIZES, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32, dropout=0.0)
    ),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=LAYERS)),
}
PACKED = {name: name != "mamba" for name in MODELS}


def build(name: str = "qwen2") -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]().eval()


def experience(rows: int = 6, tokens: int = 9) -> Experience:
    """Rows of two prompts, of up to `tokens` tokens each."""
    generator = torch.Generator().manual_seed(4)
    lengths = [tokens - row % 3 for row in range(rows)]
    old = [torch.rand(n, generator=generator) - 5 for n in lengths]
    return Experience(
        prompts=[list(range(3, 10)), list(range(20, 24))],
        prompt_of=[row % 2 for row in range(rows)],
        completions=[torch.randint(90, (n,), generator=generator) for n in lengths],
        mask=[torch.arange(n) != 1 for n in lengths],
        rollout_logprobs=old,
        advantages=torch.linspace(-1, 1, rows),
        old_logprobs=old,
    )


def backward(model: Any, rows: Experience, mixed: bool = False, **loss: Any) -> dict[str, Tensor]:
    """The gradients of one minibatch in two micro-batches."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if mixed else "no")
    options = {"temperature": 1.0, "max_length": None, "accumulation_steps": 2}
    policy = Policy(model, accelerator, LossConfig(**loss), **options)
    model.zero_grad()
    policy.backward(rows, rows.loss_tokens, len(rows), UpdateStats())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.fixture
def bf16() -> Any:
    """accelerate keeps one precision in a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.parametrize("offloads", [False, True])
@pytest.mark.parametrize("linear", ["on", "off"])
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_layers_give_the_same_gradients(name: str, linear: str, offloads: bool) -> None:
    model, rows = build(name), experience()
    assert packs(model) is PACKED[name]
    expected = backward(model, rows, linear=linear)
    recompute_activations(model, Offload() if offloads else None)
    assert_same(backward(model, rows, linear=linear), expected)


@pytest.mark.parametrize("offloads", [False, True])
@pytest.mark.parametrize("name", ["qwen2", "mamba"])
def test_recomputed_layers_give_the_same_gradients_under_autocast(
    name: str, offloads: bool, bf16: None
) -> None:
    model, rows = build(name), experience()
    expected = backward(model, rows, mixed=True)
    assert not all(torch.equal(x, x.bfloat16().float()) for x in expected.values())
    recompute_activations(model, Offload() if offloads else None)
    assert_same(backward(model, rows, mixed=True), expected)


def inputs_alive(model: Any, rows: Experience) -> tuple[int, int]:
    """How many inputs of layers there are after the last micro-batch's forward, of how many were made."""
    storages: list[Any] = []
    alive: list[int] = []

    def entered(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        storages.append(weakref.ref(arguments[0]))

    def left(body: nn.Module, arguments: Any, output: Any) -> None:
        alive.append(sum(reference() is not None for reference in storages))
        storages.clear()

    handles = [layer.register_forward_pre_hook(entered) for layer in model.model.layers]
    handles.append(model.model.register_forward_hook(left))
    backward(model, rows)
    for handle in handles:
        handle.remove()
    return alive[-1], len(model.model.layers)


def test_offloaded_inputs_are_not_on_the_device_between_forward_and_backward() -> None:
    model, rows = build(), experience()
    recompute_activations(model)
    assert inputs_alive(model, rows) == (LAYERS, LAYERS)
    model = build()
    offload = Offload()
    recompute_activations(model, offload)
    alive, layers = inputs_alive(model, rows)
    assert (alive, layers) == (0, LAYERS)
    assert offload.host_bytes == 0, "behind the backward nothing is kept"


def test_the_host_holds_one_tensor_of_each_layer() -> None:
    model, offload, seen = build(), Offload(), []
    recompute_activations(model, offload)
    model.model.norm.register_forward_hook(lambda *_: seen.append((len(offload.kept), offload.host_bytes)))
    rows = experience(rows=2, tokens=8)
    backward(model, rows)
    # 7 and 8 tokens and the prompts' 6 and 3, each in a micro-batch of its own
    # After what the proofs of the model and its head ran.
    assert seen[-2:] == [(LAYERS, LAYERS * (8 + 6) * 32 * 4), (LAYERS, LAYERS * (7 + 3) * 32 * 4)]


def test_each_lever_takes_less_memory_on_the_device() -> None:
    rows, peaks = experience(rows=8, tokens=60), []
    for recompute, offload in ((False, None), (True, None), (True, Offload())):
        model = build()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if recompute:
            recompute_activations(model, offload)
        known = [*model.parameters(), *(p.grad for p in model.parameters())]
        with PeakMemory(known, partial(getattr, offload or Offload(), "host_bytes")) as memory:
            backward(model, rows)
        peaks.append(memory.peak)
    saved, recomputed, offloaded = peaks
    tokens = 4 * (60 + 59 + 58) / 3
    assert recomputed < 0.6 * saved
    assert recomputed - offloaded > (LAYERS - 2) * tokens * 32 * 4


def test_a_run_with_both_ends_with_the_weights_of_one_without(tmp_path: Path) -> None:
    both = {"gradient_checkpointing": True, "offload_activations": True}
    plain = run(build_config(tmp_path / "a")).model
    levered = run(build_config(tmp_path / "b", model=both)).model
    for a, b in zip(plain.parameters(), levered.parameters(), strict=True):
        assert torch.equal(a, b)


def test_offloading_without_checkpointing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.offload_activations: needs model\.gradient_checkpointing"):
        build_config(tmp_path, model={"offload_activations": True})
