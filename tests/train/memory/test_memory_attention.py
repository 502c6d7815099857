"""Attention by lengths in updates: its layout, its gradients, and when it is chosen.

No kernel of FlashAttention runs on a CPU: `plain_varlen` stands for one, in its signature.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from elastic.train.update import flash
from elastic.train.update.flash import Shape, choose_attention, fault_of, shapes_of
from elastic.train.update.proof import _PACKS
from elastic.train.update.varlen import Sequences, VarlenLayout, plain_varlen
from tests.train.memory.test_memory_checkpointing import build
from tests.train.tiny_run import build_config, run

CPU = torch.device("cpu")
SHAPE = Shape(4, 2, 16, 16, False)


def test_keys_of_a_completion_are_its_prompts_and_its_own() -> None:
    # tokens 0-2: a prompt; 3-4, 5, 6-8: completions, the second of a prompt that shares nothing
    layout = VarlenLayout.build([3, 0], [2, 1, 3], [0, 1, 0], CPU, plain_varlen)
    assert layout.token_of_key.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7, 8]
    assert layout.sequences.query_offsets.tolist() == [0, 3, 5, 6, 9]
    assert layout.sequences.key_offsets.tolist() == [0, 3, 8, 9, 15]
    assert layout.sequences[2:] == (3, 6)
    assert layout.longest == 6
    assert layout.sequences.query_offsets.dtype == torch.int32
    assert layout.key_of_own.tolist() == [6, 7, 8, 12, 13, 14]
    assert layout.keys_of_shared.tolist() == [[0, 3, 9], [1, 4, 10], [2, 5, 11]]
    assert layout.missing is None


def test_a_prompt_with_fewer_rows_than_another_has_keys_missing() -> None:
    layout = VarlenLayout.build([1, 1], [1, 1, 1], [0, 0, 1], CPU, plain_varlen)
    assert layout.missing is not None
    assert layout.missing[:, :, 0, 0].tolist() == [[False] * 3, [False, False, True]]


def test_the_copies_of_a_prompts_key_are_summed_in_float32() -> None:
    """2,048 and then many ones: in bfloat16, one after the other, each would be lost."""
    rows = 64
    gradient_of = [2048.0] + [1.0] * rows

    def kernel(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        first = layout.keys_of_shared[0]
        weights = torch.zeros(len(key)).index_put((first,), torch.tensor(gradient_of)).bfloat16()
        return query + (weights[:, None, None] * (key + value)).sum()

    layout = VarlenLayout.build([1], [1] * rows, [0] * rows, CPU, kernel)
    key = torch.zeros(1 + rows, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    query = torch.zeros(1 + rows, 1, 1, dtype=torch.bfloat16)
    layout.attend(query, key, key.detach(), None, None)[0].sum().backward()
    assert key.grad is not None
    assert key.grad[0].item() == 2048 + rows


def test_under_autocast_a_kernel_gets_its_dtype() -> None:
    seen: list[torch.dtype] = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        seen.extend(x.dtype for x in (query, key, value))
        return query

    layout = VarlenLayout.build([1], [2], [0], CPU, kernel)
    x = torch.zeros(3, 1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        layout.attend(x, x, x.bfloat16(), None, None)
    assert seen == [torch.bfloat16] * 3


def upper_left(query: Tensor, key: Tensor, value: Tensor, s: Sequences, *rest: Any) -> Tensor:
    """What kernels did before FlashAttention 2.1: the first query sees the first key alone."""
    parts = []
    bounds = zip(s.query_offsets.tolist(), s.query_offsets.tolist()[1:], s.key_offsets.tolist(), strict=False)
    for first, last, start in bounds:
        offsets = torch.tensor([0, last - first])
        same = Sequences(offsets, offsets, last - first, last - first)
        keys = slice(start, start + last - first)
        parts.append(plain_varlen(query[first:last], key[keys], value[keys], same, *rest))
    return torch.cat(parts)


def no_gradient(query: Tensor, *rest: Any) -> Tensor:
    return plain_varlen(query.detach(), *rest) + 0 * query


def fails(*_: Any) -> Tensor:
    raise RuntimeError("head dimension 16 is not compiled")


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        (upper_left, "its result is off by"),
        (no_gradient, "its gradient of queries is off by"),
        (fails, "RuntimeError: head dimension 16 is not compiled"),
        (lambda *a: plain_varlen(*a) * float("nan"), "its result is off by nan"),
    ],
)
def test_a_kernel_that_is_wrong_is_found_in_the_trial(kernel: Any, fault: str) -> None:
    assert fault_of(kernel, SHAPE, CPU, torch.bfloat16).startswith(fault)


@pytest.mark.parametrize("windowed", [False, True])
def test_a_kernel_that_is_right_passes_the_trial(windowed: bool) -> None:
    shape = SHAPE._replace(windowed=windowed)
    assert fault_of(plain_varlen, shape, CPU, torch.bfloat16) == ""
    without = fault_of(lambda *a: plain_varlen(*a[:5], None), shape, CPU, torch.bfloat16)
    assert without.startswith("its result is off") if windowed else without == ""


def test_shapes_are_those_that_the_layers_attend_with() -> None:
    assert shapes_of(build("qwen3")) == {Shape(4, 2, 8, 8, False)}
    assert shapes_of(build("opt")) == {Shape(4, 4, 8, 8, False)}


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], str]]:
    """Lets choices see a GPU where there is none, and the kernels that are put into the list."""
    kernels: list[tuple[dict[str, Any], str]] = [({}, "")]
    monkeypatch.setattr(flash, "_device", lambda model: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(flash, "_kernels", lambda device: kernels[0])
    own = flash.fault_of
    monkeypatch.setattr(flash, "fault_of", lambda kernel, shape, _, dtype: own(kernel, shape, CPU, dtype))
    return kernels


def test_the_first_kernel_that_passes_is_taken(on_gpu: Any) -> None:
    on_gpu[0] = ({"old": upper_left, "new": plain_varlen, "other": plain_varlen}, "")
    for wanted in ("auto", "flash"):
        choice = choose_attention(wanted, build(), torch.bfloat16)
        assert choice == (plain_varlen, "new, by lengths")
    assert choose_attention("sdpa", build(), torch.bfloat16) == (None, "SDPA (asked for)")


def test_without_a_right_kernel_auto_says_why_and_flash_refuses(on_gpu: Any) -> None:
    on_gpu[0] = ({"old": upper_left}, "flash_attn cannot be imported (no module)")
    choice = choose_attention("auto", build(), torch.bfloat16)
    why = r"flash_attn cannot be imported \(no module\); old: its result is off by "
    assert choice.kernel is None
    assert choice.text.startswith("SDPA (flash: flash_attn cannot be imported (no module); old: its result")
    with pytest.raises(ValueError, match=rf"train\.attention: 'flash' was asked for, but {why}"):
        choose_attention("flash", build(), torch.bfloat16)


def test_flash_is_not_for_float32_nor_for_padded_rows(on_gpu: Any) -> None:
    on_gpu[0] = ({"new": plain_varlen}, "")
    with pytest.raises(ValueError, match=r"16-bit computation \(train\.mixed_precision = 'bf16'\)"):
        choose_attention("flash", build(), torch.float32)
    model = build()
    _PACKS[model] = False
    with pytest.raises(ValueError, match="the model's rows are padded"):
        choose_attention("flash", model, torch.bfloat16)
    assert choose_attention("auto", model, torch.bfloat16).text == "the model's own over padded rows"


def test_on_a_cpu_flash_is_refused_before_the_first_rollout(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"train\.attention: 'flash' .* needs a CUDA device, this is cpu"):
        run(build_config(tmp_path, train={"attention": "flash"}), reward=fails)


def test_a_run_says_which_attention_its_updates_use(tmp_path: Any, capsys: Any) -> None:
    run(build_config(tmp_path, train={"steps": 1}, logging={"console_every": 1, "progress": False}))
    assert (
        "attention of updates: SDPA (flash: it needs a CUDA device, this is cpu)" in capsys.readouterr().err
    )


def test_a_run_by_lengths_ends_with_the_weights_of_one_over_buckets(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: dict[str, Any] = {"train": {"accumulation_steps": 2}, "loss": {"kl_coef": 0.1}}
    buckets = run(build_config(tmp_path / "a", **tables)).model
    choice = flash.Choice(plain_varlen, "plain")
    monkeypatch.setattr("elastic.train.parts.choose_attention", lambda *_: choice)
    lengths = run(build_config(tmp_path / "b", **tables)).model
    moved = 0.0
    for a, b in zip(buckets.parameters(), lengths.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
        moved += (a - b).abs().max().item()
    assert moved > 0, "the kernel took part"
