"""Every wrong argument of the loss ops: which exception, and the three parts of its message."""

import inspect
from dataclasses import fields
from typing import Any

import numpy
import pytest
import torch

from elastic import ops, reference
from elastic.ops.grpo_options import GrpoOptions
from elastic.train.config.updates import LossConfig
from tests.loss.batches import LOSSES
from tests.loss.calls import GOOD, META, REWARDS, N, R, V, call

pytestmark = pytest.mark.usefixtures("kernels")

# changes, exception, argument, what was expected, what came instead
Wrong = tuple[dict[str, Any], type[Exception], str, str, str]


def tensors(name: str, dtype: torch.dtype = torch.float32) -> list[Wrong]:
    """What no tensor argument takes."""
    values = {"list": [0.0] * N, "ndarray": numpy.zeros(N), "str": "x", "float": 1.5, "bool": True}
    wrong: list[Wrong] = [({name: v}, TypeError, name, "a tensor", got) for got, v in values.items()]
    meta = torch.zeros(N, dtype=dtype, **META)
    return [*wrong, ({name: meta}, ValueError, name, "a tensor on cpu", "one on meta")]


def numbers(name: str, **others: Any) -> list[Wrong]:
    """What no number takes, where `others` make it count."""
    values = {"'1'": "1", "True": True, "list": [1.0], "ndarray": numpy.ones(2), "complex": 1j}
    wrong: list[Wrong] = [
        ({**others, name: v}, TypeError, name, "a number", got) for got, v in values.items()
    ]
    return [
        *wrong,
        ({**others, name: 10**400}, ValueError, name, "a number that float64 holds", "a larger one"),
    ]


def integers(name: str, **others: Any) -> list[Wrong]:
    values = {"6.0": 6.0, "'6'": "6", "True": True, "list": [6], "a tensor of int64": torch.tensor(6)}
    return [({**others, name: v}, TypeError, name, "an integer", got) for got, v in values.items()]


def flags(name: str, **others: Any) -> list[Wrong]:
    values = {"1": 1, "None": None, "'yes'": "yes", "a tensor of bool": torch.tensor(True)}
    return [({**others, name: v}, TypeError, name, "True or False", got) for got, v in values.items()]


def names(name: str, expected: str, **others: Any) -> list[Wrong]:
    return [
        ({**others, name: "x"}, ValueError, name, expected, "'x'"),
        ({**others, name: 3}, TypeError, name, expected, "3"),
    ]


def numbers_only(name: str, **others: Any) -> list[Wrong]:
    return [*numbers(name, **others), ({**others, name: None}, TypeError, name, "a number", "None")]


KINDS = "group, none, batch, rloo, maxrl or passk"
SHARED: list[Wrong] = [
    *tensors("targets", torch.int64),
    *tensors("old_logprobs"),
    *tensors("row_offsets", torch.int64),
    *tensors("advantages"),
    *tensors("mask", torch.bool),
    *tensors("ref_logprobs"),
    *tensors("engine_logprobs"),
    *[({**REWARDS, **c}, e, *rest) for c, e, *rest in tensors("rewards")],
    *[({**REWARDS, **c}, e, *rest) for c, e, *rest in tensors("group_offsets", torch.int64)],
    ({"targets": None}, TypeError, "targets", "a tensor", "NoneType"),
    ({"old_logprobs": torch.zeros(N).long()}, TypeError, "old_logprobs", "a floating point tensor", "int64"),
    ({"mask": torch.ones(N)}, TypeError, "mask", "[6] bool on cpu", "[6] float32 on cpu"),
    ({"targets": torch.zeros(N)}, TypeError, "targets", "[6] int64 on cpu", "[6] float32 on cpu"),
    ({"advantages": torch.ones(3)}, ValueError, "advantages", "[2] float32 on cpu", "[3] float32 on cpu"),
    *numbers("temperature"),
    ({"temperature": None}, TypeError, "temperature", "a number", "None"),
    ({"temperature": torch.ones(4)}, ValueError, "temperature", "[6] float32 on cpu", "[4] float32 on cpu"),
    ({"temperature": torch.ones((), **META)}, ValueError, "temperature", "a tensor on cpu", "one on meta"),
    *numbers("softcap"),
    *numbers("clip_low"),
    *numbers("clip_high", loss="cispo"),
    *numbers("delta"),
    *numbers("dual_clip"),
    *numbers("tau_positive", loss="sapo"),
    *numbers("tau_negative", loss="sapo"),
    *numbers_only("kl_coef", ref_logprobs=torch.zeros(N)),
    *numbers_only("entropy_coef"),
    *numbers("engine_low", engine_logprobs=torch.zeros(N)),
    *numbers("engine_high", engine_logprobs=torch.zeros(N)),
    *numbers("advantage_eps", **REWARDS),
    *integers("pass_k", **REWARDS, advantage="passk"),
    *integers("num_tokens"),
    *integers("num_rows"),
    *integers("max_length", loss="dr_grpo"),
    ({"num_tokens": -1}, ValueError, "num_tokens", "at least 0", "-1"),
    ({"num_rows": -1}, ValueError, "num_rows", "at least 0", "-1"),
    *flags("kl_weighted", ref_logprobs=torch.zeros(N)),
    *flags("skip_zero_advantage"),
    *names("loss", "grpo, bnpo, dr_grpo, dapo, gspo, cispo or sapo"),
    ({"loss": None}, TypeError, "loss", "grpo, bnpo, dr_grpo, dapo, gspo, cispo or sapo", "None"),
    *names("kl", "k1, k2 or k3", ref_logprobs=torch.zeros(N)),
    *names("engine_mode", "truncate or mask", engine_logprobs=torch.zeros(N)),
    *names("engine_level", "token or row", engine_logprobs=torch.zeros(N)),
    *names("advantage", KINDS, **REWARDS),
    # what would be ignored
    ({"advantage": "group"}, ValueError, "advantage", "None without rewards", "'group'"),
    ({"advantage_eps": 0.1}, ValueError, "advantage_eps", "None without rewards", "0.1"),
    ({"pass_k": 2}, ValueError, "pass_k", "None without rewards", "2"),
    ({**REWARDS, "pass_k": 2}, ValueError, "pass_k", "None with advantage='group'", "2"),
    (
        {**REWARDS, "advantage": "rloo", "advantage_eps": 0.0},
        *(ValueError, "advantage_eps", "None with advantage='rloo'", "0.0"),
    ),
    ({"kl": "k3"}, ValueError, "kl", "None without ref_logprobs", "'k3'"),
    ({"kl_weighted": True}, ValueError, "kl_weighted", "None without ref_logprobs", "True"),
    ({"kl_coef": 0.1}, ValueError, "ref_logprobs", "a tensor with kl_coef = 0.1", "None"),
    ({"engine_mode": "mask"}, ValueError, "engine_mode", "None without engine_logprobs", "'mask'"),
    ({"engine_level": "row"}, ValueError, "engine_level", "None without engine_logprobs", "'row'"),
    ({"engine_low": 0.0}, ValueError, "engine_low", "None without engine_logprobs", "0.0"),
    ({"engine_high": 2}, ValueError, "engine_high", "None without engine_logprobs", "2"),
    ({"max_length": 9}, ValueError, "max_length", "None with loss='grpo'", "9"),
    ({"loss": "sapo", "clip_high": 0.2}, ValueError, "clip_high", "None with loss='sapo'", "0.2"),
    *[
        ({"loss": loss, name: 1.5}, ValueError, name, f"None with loss='{loss}'", "1.5")
        for loss in ("cispo", "sapo")
        for name in ("clip_low", "delta", "dual_clip")
    ],
    *[
        ({"loss": loss, name: 1.5}, ValueError, name, f"None with loss='{loss}'", "1.5")
        for loss in LOSSES[:-1]
        for name in ("tau_positive", "tau_negative")
    ],
    *[
        ({**REWARDS, **given}, ValueError, "advantages", expected, got)
        for expected in ["exactly one of advantages and (rewards, group_offsets)"]
        for given, got in [
            ({"advantages": torch.ones(R)}, "advantages, rewards, group_offsets"),
            ({"rewards": None, "group_offsets": None}, "none"),
            ({"group_offsets": None}, "rewards"),
        ]
    ],
]
WRONG: dict[str, list[Wrong]] = {
    "group_advantage": [
        *tensors("rewards")[:-1],  # the others are to be where the rewards are
        *tensors("group_offsets", torch.int64),
        ({"rewards": torch.ones(R) + 1j}, TypeError, "rewards", "real numbers", "complex64"),
        ({"rewards": torch.ones(R, 1)}, ValueError, "rewards", "[R]", "[2, 1] float32 on cpu"),
        *names("kind", KINDS),
        *numbers("eps"),
        *integers("pass_k", kind="passk"),
        ({"kind": "none", "eps": 0.1}, ValueError, "eps", "None with kind='none'", "0.1"),
        ({"pass_k": 4}, ValueError, "pass_k", "None with kind='group'", "4"),
    ],
    "token_logprobs": [
        *tensors("targets", torch.int64),
        ({"logits": None}, TypeError, "logits", "a tensor", "NoneType"),
        ({"logits": numpy.zeros((N, V))}, TypeError, "logits", "a tensor", "ndarray"),
        *[wrong for wrong in SHARED if wrong[2] in ("temperature", "softcap")],
    ],
    "grpo_loss": [
        *SHARED,
        ({"logits": [[0.0]]}, TypeError, "logits", "a tensor", "list"),
        ({"logits": torch.zeros(())}, ValueError, "logits", "[N, V]", "[] float32 on cpu"),
        *flags("inplace"),
    ],
    "linear_grpo_loss": [
        *SHARED,
        ({"hidden": [[0.0]]}, TypeError, "hidden", "a tensor", "list"),
        *tensors("weight"),
        *tensors("bias"),
        *integers("chunk_tokens"),
        ({"chunk_tokens": 0}, ValueError, "chunk_tokens", "at least 1", "0"),
        *flags("gather"),
    ],
}


@pytest.mark.cpu_kernels  # no kernel gets to run
@pytest.mark.parametrize(
    ("op", "changes", "error", "argument", "expected", "got"),
    [
        pytest.param(op, *wrong, id=f"{op}-{wrong[2]}-{wrong[4]}-{number}")
        for op, table in WRONG.items()
        for number, wrong in enumerate(table)
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(
    op, changes, error, argument, expected, got
):
    with pytest.raises(error) as caught:
        call(op, changes)
    assert caught.type is error
    first, *_ = str(caught.value).splitlines()
    assert first == f"{op}: {argument}: expected {expected}, got {got}"


@pytest.mark.parametrize("op", GOOD)
def test_a_misspelt_keyword_names_the_public_op(op):
    with pytest.raises(TypeError, match=rf"^{op}\(\) got an unexpected keyword argument 'clip_lo'"):
        call(op, {"clip_lo": 0.2})


def test_both_losses_have_the_same_keywords_written_out():
    def keywords(op: Any) -> dict[str, Any]:
        parameters = inspect.signature(op).parameters.values()
        assert all(p.kind != p.VAR_KEYWORD for p in parameters)
        return {p.name: p for p in parameters if p.kind == p.KEYWORD_ONLY}

    ours, heads = keywords(ops.grpo_loss), keywords(ops.linear_grpo_loss)
    assert ours.keys() - heads.keys() == {"inplace"}
    assert heads.keys() - ours.keys() == {"bias", "chunk_tokens", "gather"}
    assert all(ours[name] == heads[name] for name in ours.keys() & heads.keys())
    assert keywords(reference.grpo_loss).keys() == ours.keys()


@pytest.mark.parametrize("op", ["grpo_loss", "grpo_loss_", "linear_grpo_loss"])
def test_the_lists_of_options_in_python_and_cpp_agree(op):
    schema = getattr(torch.ops.elastic, op).default._schema
    names = {argument.name for argument in schema.arguments}
    own = {"logits", "hidden", "weight", "bias", "chunk_tokens", "gather", "needs_gradient"}
    positional = {"targets", "old_logprobs", "row_offsets", "advantages", "temperatures"}
    assert names - own - positional == GrpoOptions.__annotations__.keys() - {"engine_level"} | {"engine_rows"}


def test_the_trainers_defaults_are_those_of_the_ops():
    parameters = inspect.signature(reference.grpo_loss).parameters
    defaults = {name: parameters[name].default for name in GrpoOptions.__annotations__}
    shared = {item.name: item.default for item in fields(LossConfig) if item.name in defaults}
    other = {"loss": "dapo", "skip_zero_advantage": True}  # what the paper trains with; no result changes
    assert shared == {name: defaults[name] for name in shared} | other
    assert len(shared) == 19


def test_errors_in_place_name_the_public_op():
    logits = torch.zeros(N, V, requires_grad=True) * 1
    with pytest.raises(ValueError, match=r"^grpo_loss: old_logprobs: expected"):
        call("grpo_loss", {"logits": logits, "old_logprobs": torch.zeros(5), "inplace": True})
