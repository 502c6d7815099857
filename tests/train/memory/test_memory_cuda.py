"""Offloading and attention by lengths where they are meant to run."""

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from elastic.models.modes import recompute_activations
from elastic.models.offload import Offload
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.flash import choose_attention
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.varlen import VarlenKernel


def build(device: torch.device) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    return Qwen2ForCausalLM(config).to(device, torch.bfloat16).eval()


def gradients(model: Qwen2ForCausalLM, kernel: VarlenKernel | None = None) -> list[Tensor]:
    """Of two groups of rows, one of them long enough to fill a call alone."""
    prompts = [[(7 * i) % 96 for i in range(300)], [5, 6, 7]]
    rows = [torch.arange(n) % 96 for n in (1700, 40, 65, 900)]
    packed = pack(prompts, rows, [0, 1, 1, 0], model.device, kernel)
    model.zero_grad()
    with tree_attention_of(model):
        logprobs = packed_logits(model, packed).float().log_softmax(-1)
        logprobs.gather(1, packed.targets[:, None]).mean().backward()
    return [p.grad.float().clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.cuda
def test_offloaded_activations_give_the_gradients_of_kept_ones(cuda: torch.device) -> None:
    model = build(cuda)
    recompute_activations(model)
    expected = gradients(model)
    model = build(cuda)
    recompute_activations(model, Offload())
    for _ in range(3):  # pinned memory is used again
        for actual, wanted in zip(gradients(model), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0.05, atol=0.02 * wanted.abs().max().item())


@pytest.mark.cuda
def test_attention_by_lengths_gives_the_gradients_of_sdpa(cuda: torch.device) -> None:
    model = build(cuda)
    choice = choose_attention("auto", model, torch.bfloat16)
    if choice.kernel is None:
        pytest.skip(choice.text)
    for actual, wanted in zip(gradients(model, choice.kernel), gradients(model), strict=True):
        error = (actual - wanted).norm() / wanted.norm().clamp(min=1e-3)
        assert error < 0.05
