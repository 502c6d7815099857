"""Bad input to `grpo_loss`: a ValueError or TypeError that names the argument, before anything is
computed."""

import math

import pytest
import torch

from elastic import ops
from tests.loss.batches import computed

N, V, R = 6, 37, 2


def arguments(**changes):
    given = {
        "logits": torch.zeros(N, V),
        "targets": torch.zeros(N, dtype=torch.int64),
        "old_logprobs": torch.zeros(N),
        "row_offsets": torch.tensor([0, 2, N]),
        "advantages": torch.ones(R),
    }
    return {**given, **changes}


ones = torch.ones
REWARDS = {"advantages": None, "rewards": ones(R), "group_offsets": torch.tensor([0, R])}
BAD = [
    # logits
    (
        {"logits": torch.zeros(N, V, dtype=torch.float8_e5m2)},
        TypeError,
        r"logits: expected float32, bfloat16, float16 .* got \[6, 37\] float8_e5m2",
    ),
    ({"logits": torch.zeros(N, V, dtype=torch.int64)}, TypeError, "logits: expected float32"),
    ({"logits": [[0.0] * V] * N}, TypeError, "logits: expected a tensor, got list"),
    ({"logits": torch.zeros(1, N, V)}, ValueError, r"logits: expected \[N, V\], got \[1, 6, 37\]"),
    (
        {"logits": torch.zeros(V, N).t()},
        ValueError,
        r"logits: expected a last dimension of stride 1, got strides",
    ),
    (
        {"logits": torch.zeros(N, 0)},
        ValueError,
        "logits: expected a vocabulary of at least one id",
    ),  # targets
    (
        {"targets": torch.zeros(5, dtype=torch.int64)},
        ValueError,
        r"targets: expected \[6\] int64 on cpu, got \[5\]",
    ),
    (
        {"targets": torch.zeros(N, dtype=torch.int32)},
        TypeError,
        r"targets: expected \[6\] int64 .* got \[6\] int32",
    ),
    ({"targets": torch.tensor([0, 0, 0, 37, 0, 0])}, ValueError, r"targets: .* \[0, 37\), got 37 at token 3"),
    ({"targets": torch.tensor([0, -1, 0, 0, 0, 0])}, ValueError, r"targets: .* got -1 at token 1"),
    (
        {"targets": torch.zeros(N, dtype=torch.int64, device="meta")},
        ValueError,
        "targets: .* on cpu, got one on meta",
    ),  # floats a token
    ({"old_logprobs": ones(5)}, ValueError, r"old_logprobs: expected \[6\] float32 on cpu, got \[5\]"),
    (
        {"old_logprobs": ones(N, dtype=torch.int64)},
        TypeError,
        "old_logprobs: expected a floating point tensor",
    ),
    ({"old_logprobs": None}, TypeError, "old_logprobs: expected a tensor, got NoneType"),
    ({"old_logprobs": ones(N, device="meta")}, ValueError, "old_logprobs: .* on cpu, got one on meta"),
    ({"ref_logprobs": ones(N, 1)}, ValueError, r"ref_logprobs: expected \[6\] float32 on cpu, got \[6, 1\]"),
    ({"engine_logprobs": ones(7)}, ValueError, r"engine_logprobs: expected \[6\] float32 on cpu, got \[7\]"),
    # mask
    ({"mask": ones(5, dtype=torch.bool)}, ValueError, r"mask: expected \[6\] bool on cpu, got \[5\]"),
    ({"mask": ones(N, dtype=torch.uint8)}, TypeError, r"mask: expected \[6\] bool on cpu, got \[6\] uint8"),
    ({"mask": ones(N)}, TypeError, r"mask: expected \[6\] bool on cpu, got \[6\] float32"),
    # offsets
    ({"row_offsets": torch.tensor([1, 2, N])}, ValueError, "row_offsets: expected to start at 0, got 1"),
    ({"row_offsets": torch.tensor([0, 2, 5])}, ValueError, "row_offsets: expected to end at N = 6, got 5"),
    ({"row_offsets": torch.tensor([0, 2, 7])}, ValueError, "row_offsets: expected to end at N = 6, got 7"),
    (
        {"row_offsets": torch.tensor([0, 8, N])},
        ValueError,
        "row_offsets: .* never to decrease, got 8 then 6 at index 2",
    ),
    (
        {"row_offsets": torch.tensor([0, -2, N])},
        ValueError,
        "row_offsets: .* never to decrease, got 0 then -2",
    ),
    ({"row_offsets": torch.tensor([[0, 2, N]])}, ValueError, "row_offsets: expected one dimension"),
    (
        {"row_offsets": torch.tensor([0.0, 2, N])},
        TypeError,
        r"row_offsets: expected \[3\] int64 .* got \[3\] float32",
    ),  # advantages or rewards
    ({"advantages": ones(3)}, ValueError, r"advantages: expected \[2\] float32 on cpu, got \[3\]"),
    ({"advantages": ones(N)}, ValueError, r"advantages: expected \[2\] float32 on cpu, got \[6\]"),
    ({"advantages": None}, ValueError, "advantages: expected exactly one of advantages and"),
    ({"rewards": ones(R)}, ValueError, "advantages: expected exactly one of advantages and"),
    (
        {"group_offsets": torch.tensor([0, R])},
        ValueError,
        "advantages: expected exactly one of advantages and",
    ),
    (
        {"advantages": None, "rewards": ones(R)},
        ValueError,
        "advantages: expected exactly one of advantages and",
    ),
    ({**REWARDS, "rewards": ones(3)}, ValueError, r"rewards: expected \[2\] float32 on cpu, got \[3\]"),
    ({**REWARDS, "rewards": torch.tensor([1, math.nan])}, ValueError, "rewards: expected finite .* in row 1"),
    ({**REWARDS, "advantage_eps": -1.0}, ValueError, "advantage_eps: expected .* at least 0, got -1"),
    ({**REWARDS, "advantage": "passk", "pass_k": 0}, ValueError, "pass_k: expected at least 1, got 0"),
    (
        {**REWARDS, "group_offsets": torch.tensor([0, 1])},
        ValueError,
        "group_offsets: expected to end at R = 2, got 1",
    ),
    (
        {**REWARDS, "advantage": "gae"},
        ValueError,
        "advantage: expected group, none, batch, rloo, maxrl or passk, got 'gae'",
    ),  # names
    ({"loss": "ppo"}, ValueError, "loss: expected grpo, bnpo, dr_grpo, dapo, gspo, cispo or sapo, got 'ppo'"),
    ({"kl": "k4"}, ValueError, "kl: expected k1, k2 or k3, got 'k4'"),
    ({"engine_mode": "drop"}, ValueError, "engine_mode: expected truncate or mask, got 'drop'"),
    ({"engine_level": "batch"}, ValueError, "engine_level: expected token or row, got 'batch'"),
    # numbers
    ({"temperature": 0.0}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got 0"),
    ({"temperature": -0.5}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got -0.5"),
    ({"temperature": math.nan}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got nan"),
    (
        {"temperature": torch.zeros(N)},
        ValueError,
        "temperature: expected values from 1e-30 to 1e30, got 0 at token 0",
    ),
    ({"softcap": 0.0}, ValueError, "softcap: expected a value from 1e-30 to 1e30, got 0"),
    ({"softcap": math.inf}, ValueError, "softcap: expected a value from 1e-30 to 1e30, got inf"),
    ({"clip_low": -0.1}, ValueError, r"clip_low: expected a value in \[0, 1\], got -0.1"),
    ({"clip_low": 1.5}, ValueError, r"clip_low: expected a value in \[0, 1\], got 1.5"),
    ({"clip_high": -0.1}, ValueError, "clip_high: expected .* at least 0, got -0.1"),
    ({"delta": 0.0}, ValueError, "delta: expected a value above 0, got 0"),
    ({"dual_clip": 1.0}, ValueError, "dual_clip: expected a value above 1, got 1"),
    ({"kl_coef": 0.1}, ValueError, "ref_logprobs: expected a tensor with kl_coef = 0.1, got None"),
    ({"kl_coef": -0.1, "ref_logprobs": ones(N)}, ValueError, "kl_coef: expected .* at least 0, got -0.1"),
    ({"entropy_coef": math.inf}, ValueError, "entropy_coef: expected a finite value, got inf"),
    (
        {"loss": "sapo", "tau_positive": 0.0},
        ValueError,
        "tau_positive: expected a value from 1e-30 to 1e30, got 0",
    ),
    (
        {"loss": "sapo", "tau_negative": -1.0},
        ValueError,
        "tau_negative: expected a value from 1e-30 to 1e30, got -1",
    ),
    (
        {"engine_logprobs": ones(N), "engine_low": 3.0},
        ValueError,
        "engine_low: expected 0 <= engine_low <= engine_high, got 3 and 2",
    ),
    ({"num_tokens": -1}, ValueError, "num_tokens: expected at least 0, got -1"),
    ({"num_rows": -3}, ValueError, "num_rows: expected at least 0, got -3"),
    ({"loss": "dr_grpo"}, ValueError, "max_length: expected a length, which dr_grpo divides by, got None"),
    ({"max_length": 0, "loss": "dr_grpo"}, ValueError, "max_length: expected at least 1, got 0"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        ops.grpo_loss(**arguments(**changes))


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_leaves_the_logits_alone(changes, error, message):
    given = arguments(**changes)
    if not isinstance(given["logits"], torch.Tensor) or not given["logits"].is_floating_point():
        given["logits"] = torch.zeros(
            N, V, dtype=torch.float8_e5m2
        )  # an integer tensor cannot ask for a gradient
    leaf = given["logits"].clone().requires_grad_()
    given["logits"] = computed(leaf)
    with pytest.raises(error):
        ops.grpo_loss(**given, inplace=True)
    assert (leaf == 0).all()


def test_good_input_passes():
    assert ops.grpo_loss(**arguments()).loss.isfinite()
    assert ops.grpo_loss(**arguments(**REWARDS)).loss.isfinite()


def test_rows_that_overlap_are_not_written_over():
    row = torch.zeros(V, requires_grad=True)
    logits = (row * 1).expand(N, V)
    assert ops.grpo_loss(**arguments(logits=logits)).loss.isfinite(), "reading them is fine"
    with pytest.raises(ValueError, match="logits: expected rows that do not overlap"):
        ops.grpo_loss(**arguments(logits=logits), inplace=True)


def test_masked_ids_may_be_anything():
    mask = torch.tensor([True, True, False, True, True, True])
    targets = torch.tensor([0, 0, -100, 0, 0, 0])
    assert ops.grpo_loss(**arguments(targets=targets, mask=mask)).loss.isfinite()
