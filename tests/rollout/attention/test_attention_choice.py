"""Which attention decodes: what is offered where, why, and what is said of it."""

import sys

import pytest
import torch

from elastic import RolloutEngine
from elastic.rollout.attention import flash
from elastic.rollout.attention import slot_attention as attention
from elastic.rollout.attention.slot_attention import SlotAttention
from tests.rollout.attention.oracle import FlashStandIn
from tests.rollout.attention.windowed_models import check_rescored, decode
from tests.rollout.small_models import make_model

CPU = torch.device("cpu")


def test_a_model_that_passes_nothing_on_decodes_by_its_own_attention(tokenizer):
    model = make_model()
    for layer in model.model.layers:
        plain = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, plain=plain, slot_reads=None, **kwargs: plain(*args, **kwargs)
    engine = RolloutEngine(model, tokenizer, eos_ids=[])
    assert engine.attention.startswith("mask (")
    check_rescored(model, decode(engine))


def test_an_explicit_choice_that_the_model_does_not_take_is_refused(tokenizer, stand_in):
    model = make_model()
    for layer in model.model.layers:
        plain = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, plain=plain, slot_reads=None, **kwargs: plain(*args, **kwargs)
    with pytest.raises(
        ValueError, match=r"decoded in slots with attention='flash': .*needs what the rows may"
    ):
        RolloutEngine(model, tokenizer, attention="flash")


def test_what_a_gpu_is_offered_and_why(stand_in, monkeypatch):
    """In order; the last is the model's own, which every model has."""
    model, cuda = make_model().to(torch.bfloat16), torch.device("cuda")
    kinds = [one.kind for one in attention.candidates(model, "auto", cuda)]
    assert kinds == ["flash", "flex", "sdpa", "mask"]
    assert (
        attention.candidates(model, "auto", cuda)[0].reason == "FlashAttention 3 (forward only) is installed"
    )
    monkeypatch.setattr(attention, "flash_obstacle", lambda *_: "it is not")
    found = attention.candidates(model, "auto", cuda)
    assert [one.backend for one in found] == ["flex", "sdpa", "mask"]
    assert {one.reason for one in found[:2]} == {"it is not"}


def test_a_cpu_takes_masks(model):
    found = attention.candidates(model, "auto", CPU)
    assert [one.backend for one in found] == ["sdpa", "mask"]
    assert found[0].reason == "flash-attn needs a CUDA device, this is cpu"
    with pytest.raises(ValueError, match="'flex' was asked for, but flex_attention needs a CUDA device"):
        attention.candidates(model, "flex", CPU)


def test_flash_that_fails_on_the_model_gives_way_to_the_next(tokenizer, stand_in, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no kernel for this head dimension")

    stand_in.flash_attn_with_kvcache = fails
    choices = [SlotAttention("flash:fa3_fwd_interface", "installed"), SlotAttention("sdpa", "next")]
    monkeypatch.setattr("elastic.rollout.engine.candidates", lambda *_: choices)
    assert RolloutEngine(make_model(), tokenizer).attention == "sdpa (next)"


@pytest.mark.parametrize(
    ("dtype", "width", "device", "message"),
    [
        (torch.bfloat16, 8, "cpu", "flash-attn needs a CUDA device, this is cpu"),
        (torch.float32, 8, "cuda", "flash-attn needs bfloat16 or float16, the model is float32"),
        (torch.bfloat16, 12, "cuda", r"needs head dimensions of 8, 16, ..., 256, the model's is 12"),
        (torch.bfloat16, 320, "cuda", "the model's is 320"),
        (
            torch.bfloat16,
            8,
            "cuda",
            "flash_attn_interface cannot be imported .*; flash_attn cannot be imported",
        ),
    ],
)
def test_flash_that_cannot_run_names_what_is_missing(dtype, width, device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for module in ("flash_attn_interface", "fa3_fwd_interface", "flash_attn"):
        monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    flash.kernel.cache_clear()
    model = make_model().to(dtype)
    model.config.head_dim = width
    with pytest.raises(ValueError, match=f"attention: 'flash' was asked for, but .*{message}"):
        attention.candidates(model, "flash", torch.device(device))
    flash.kernel.cache_clear()


def test_packages_are_tried_in_turn_and_one_without_kernels_for_the_device_is_not(monkeypatch):
    modules = ("flash_attn_interface", "fa3_fwd_interface", "flash_attn")
    for module in modules:
        monkeypatch.setitem(sys.modules, module, FlashStandIn())
    flash.kernel.cache_clear()
    for major, expected in ((9, modules), (8, modules[2:]), (12, modules[2:]), (7, ())):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, major=major: (major, 0))
        found, wrong = flash.flash_packages(torch.device("cuda"))
        assert tuple(found) == expected
        assert wrong.count(f"not used on compute capability {major}") == 3 - len(expected)
    flash.kernel.cache_clear()


@pytest.mark.parametrize(("choice", "error"), [("eager", ValueError), ("FLASH", ValueError), (3, TypeError)])
def test_an_unknown_choice_is_refused(choice, error, model, tokenizer):
    with pytest.raises(error, match="attention: expected one of auto, flash, flex, sdpa, got"):
        RolloutEngine(model, tokenizer, attention=choice)


def test_the_choice_is_said_once_and_that_of_a_cpu_is_not(model, tokenizer, capsys):
    RolloutEngine(model, tokenizer)
    assert capsys.readouterr().err == ""
    engine = RolloutEngine(model, tokenizer, attention="sdpa")
    assert capsys.readouterr().err == "elastic: rollouts: attention sdpa (asked for)\n"
    assert engine.attention == "sdpa (asked for)"
