"""Hand-written values. They hold for the fused op and for the reference alike, so neither vouches for itself.

Every distribution is one whose probabilities are round numbers: logits ln(1, 2, 3, 4) are the probabilities
    0.1, 0.2,
0.3, 0.4. An old logprob is chosen so that the ratio is a round number too. The expected numbers were worked
out on paper from SPEC section 5, transcendental ones with a 30-digit calculator.
"""

import math

import pytest
import torch
from torch import Tensor

from tests.loss.batches import loss_and_gradient

LOGITS = [math.log(p) for p in (1, 2, 3, 4)]
TARGET = 2  # probability 0.3
LN_TARGET = math.log(0.3)


def tokens(ops, ratios: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and old logprobs of tokens with these ratios; every target has probability 0.3."""
    n = len(ratios)
    old = torch.tensor([LN_TARGET - math.log(r) for r in ratios], dtype=torch.float64)
    return torch.tensor([LOGITS] * n, dtype=ops.dtype), torch.full((n,), TARGET), old


def one_token(ops, ratio: float, advantage: float, **options):
    """Value of a one-token batch, and d loss / d logprob read off its gradient."""
    logits, targets, old = tokens(ops, [ratio])
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        logits,
        targets,
        old,
        torch.tensor([0, 1]),
        torch.tensor([advantage]).double(),
        **options,
    )
    # a gradient s (onehot - p) has s (1 - 0.3) at the target
    return output, gradient[0, TARGET].item() / 0.7, gradient


CLIPPED = [  # ratio, A, options, value, slope
    (1.0, 1.0, {}, -1.0, -1.0),
    (1.5, 1.0, {}, -1.2, 0.0),
    (0.5, 1.0, {}, -0.5, -0.5),
    (1.5, -1.0, {}, 1.5, 1.5),
    (0.5, -1.0, {}, 0.8, 0.0),
    (1.1, -2.0, {}, 2.2, 2.2),
    (1.25, 1.0, {"clip_high": 0.28}, -1.25, -1.25),
    (1.5, 1.0, {"clip_high": 0.28}, -1.28, 0.0),
    (0.5, -1.0, {"clip_low": 0.4}, 0.6, 0.0),
    (1.5, -1.0, {"delta": 1.4}, 1.4, 0.0),
    (1.3, -1.0, {"delta": 1.4}, 1.3, 1.3),
    (1.5, 1.0, {"delta": 1.4}, -1.2, 0.0),
    (1.1, -1.0, {"delta": 0.9}, 1.1, 1.1),
    (1.5, -1.0, {"dual_clip": 1.25}, 1.25, 0.0),
    (1.2, -1.0, {"dual_clip": 1.25}, 1.2, 1.2),
    (1.5, 1.0, {"dual_clip": 1.25}, -1.2, 0.0),
    (1.5, 0.0, {}, 0.0, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "options", "value", "slope"), CLIPPED)
def test_clipped_objective(ops, ratio, advantage, options, value, slope):
    output, got_slope, _ = one_token(ops, ratio, advantage, **options)
    assert output.loss.item() == pytest.approx(value, abs=ops.error)
    assert got_slope == pytest.approx(slope, abs=ops.error)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [  # -min(rho, 1.25) A ln 0.3, ln 0.3 = -1.20397280432594
        (1.5, 1.0, 1.50496600540742, -1.25),
        (1.0, 1.0, 1.20397280432594, -1.0),
        (1.5, -1.0, -1.50496600540742, 1.25),
        (0.5, -1.0, -0.60198640216297, 0.5),
    ],
)
def test_cispo_weighs_the_logprob_by_a_constant(ops, ratio, advantage, value, slope):
    output, got_slope, _ = one_token(ops, ratio, advantage, loss="cispo", clip_high=1.25)
    assert output.loss.item() == pytest.approx(value, abs=ops.error)
    assert got_slope == pytest.approx(slope, abs=ops.error)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [  # -A 4/tau sigmoid(tau (rho - 1)); slope -A 4 sigmoid' rho
        (1.0, 1.0, -2.0, -1.0),
        (1.5, 1.0, -2.48983732480742, -1.41002227320957),
        (1.5, -1.0, 2.39358547922044, 1.40120973492809),
        (0.5, 1.0, -1.51016267519258, -0.47000742440319),
    ],
)
def test_sapo_gates_softly(ops, ratio, advantage, value, slope):
    output, got_slope, _ = one_token(ops, ratio, advantage, loss="sapo")
    assert output.loss.item() == pytest.approx(value, abs=ops.error)
    assert got_slope == pytest.approx(slope, abs=ops.error)
    assert output.clip_fraction.item() == 0


AGGREGATED = [  # two rows, x = [-1] and [1.5, 0.8, 1.0]
    ("grpo", {}, 0.05),  # (-1 + 3.3 / 3) / 2
    ("grpo", {"num_rows": 8}, 0.0125),
    ("bnpo", {}, 0.575),  # 2.3 / 4
    ("dr_grpo", {"max_length": 10}, 0.115),  # 2.3 / 20
    ("dr_grpo", {"max_length": 10, "num_rows": 4}, 0.0575),
    ("dapo", {}, 0.575),
    ("dapo", {"num_tokens": 5}, 0.46),
    ("gspo", {}, -0.0457198517919655),  # (-1 + (1.5 0.5 1)^(1/3)) / 2
]


@pytest.mark.parametrize(("loss", "options", "value"), AGGREGATED)
def test_aggregation(ops, loss, options, value):
    logits, targets, old = tokens(ops, [1.0, 1.5, 0.5, 1.0])
    advantages = torch.tensor([1.0, -1.0]).double()
    output = ops.grpo_loss(logits, targets, old, torch.tensor([0, 1, 4]), advantages, loss=loss, **options)
    assert output.loss.item() == pytest.approx(value, abs=ops.error)


def test_gspo_shares_the_rows_ratio_and_its_gradient(ops):
    # Ratios 4 and 1 with clip_high 1.5: the row's ratio is 2, each token's slope -2 A / 2 rows / 2 tokens.
    logits, targets, old = tokens(ops, [4.0, 1.0, 1.0])
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        logits,
        targets,
        old,
        torch.tensor([0, 2, 3]),
        torch.tensor([1.0, 0.0]).double(),
        loss="gspo",
        clip_high=1.5,
    )
    assert output.loss.item() == pytest.approx(-1.0, abs=ops.error)
    assert (gradient[:, TARGET] / 0.7).tolist() == pytest.approx([-0.5, -0.5, 0.0], abs=ops.error)


@pytest.mark.parametrize(
    ("kl", "ref", "value", "slope"),
    [  # x = ln 0.3 - ref
        ("k1", 0.15, 0.693147180559945, 1.0),
        ("k2", 0.15, 0.240226506959101, 0.693147180559945),
        ("k3", 0.15, 0.193147180559945, 0.5),
        ("k3", 0.6, 0.306852819440055, -1.0),
        ("k3", 0.3, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("ratio", [1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_kl_estimators(ops, kl, ref, value, slope, ratio, weighted):
    reference = torch.tensor([math.log(ref)], dtype=torch.float64)
    output, got_slope, _ = one_token(
        ops, ratio, 0.0, kl=kl, kl_coef=0.5, kl_weighted=weighted, ref_logprobs=reference
    )
    if weighted:  # d (rho k) / dl = rho k' + rho k
        value, slope = ratio * value, ratio * (slope + value)
    assert output.kl.item() == pytest.approx(value, abs=ops.error)
    assert output.loss.item() == pytest.approx(0.5 * value, abs=ops.error)
    assert got_slope == pytest.approx(0.5 * slope, abs=ops.error)


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_gradient_over_the_vocabulary(ops, loss):
    _, _, gradient = one_token(ops, 1.0, 1.0, loss=loss)
    assert gradient[0].tolist() == pytest.approx([0.1, 0.2, -0.7, 0.4], abs=ops.error)


def test_entropy_bonus(ops):
    output, _, gradient = one_token(ops, 1.0, 0.0, entropy_coef=0.01)
    assert output.entropy.item() == pytest.approx(1.27985422583367, abs=ops.error)
    assert output.loss.item() == pytest.approx(-0.0127985422583367, abs=ops.error)
    # dH/dx = -p (ln p + H)
    slopes = [0.102273086716038, 0.0659167373200866, -0.0227644264523194, -0.145425397583805]
    assert gradient[0].tolist() == pytest.approx([-0.01 * s for s in slopes], abs=ops.error)


@pytest.mark.parametrize("per_token", [False, True])
def test_temperature_divides_logits_and_gradient(ops, per_token):
    logits = 2 * torch.tensor([LOGITS], dtype=ops.dtype)  # divided by 2: 0.1, 0.2, 0.3, 0.4
    temperature = torch.tensor([2.0]) if per_token else 2.0
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        logits,
        torch.tensor([TARGET]),
        torch.tensor([LN_TARGET]).double(),
        torch.tensor([0, 1]),
        torch.tensor([1.0]).double(),
        temperature=temperature,
    )
    assert output.logprobs.item() == pytest.approx(LN_TARGET, abs=ops.error)
    assert gradient[0].tolist() == pytest.approx([0.05, 0.1, -0.35, 0.2], abs=1e-7 + ops.error)


@pytest.mark.parametrize(
    ("mode", "level", "values"),
    [  # exp(old - engine) is 4, 1, 0.5 in one row of ratios 1: their product is 2; x = -w, mean of three
        ("truncate", "token", (2.0, 1.0, 0.75)),
        ("mask", "token", (0.0, 1.0, 0.0)),
        ("truncate", "row", (2.0, 2.0, 2.0)),
        ("mask", "row", (2.0, 2.0, 2.0)),
    ],
)
def test_engine_weights(ops, mode, level, values):
    logits, targets, old = tokens(ops, [1.0, 1.0, 1.0])
    engine = old - torch.tensor([4.0, 1.0, 0.5]).double().log()
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        logits,
        targets,
        old,
        torch.tensor([0, 3]),
        torch.tensor([1.0]).double(),
        engine_logprobs=engine,
        engine_mode=mode,
        engine_level=level,
        engine_low=0.75,
        engine_high=2.0 + ops.error,  # the product of the three is 2 up to rounding
    )
    assert output.loss.item() == pytest.approx(-sum(values) / 3, abs=2 * ops.error)
    assert (gradient[:, TARGET] / 0.7 * 3).tolist() == pytest.approx([-v for v in values], abs=2 * ops.error)


def test_clip_fraction_counts_the_side_that_acts(ops):
    # Clipped: 1.5 with A > 0; 0.5 with A < 0. Not: 0.5 with A > 0, 1.5 with A < 0, 1.0; masked: never.
    logits, targets, old = tokens(ops, [1.5, 0.5, 1.0, 1.5, 0.5, 1.5])
    mask = torch.tensor([True, True, True, False, True, True])
    advantages = torch.tensor([1.0, -1.0]).double()
    output = ops.grpo_loss(logits, targets, old, torch.tensor([0, 4, 6]), advantages, mask=mask)
    assert output.clip_fraction.item() == pytest.approx(2 / 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logprob_and_entropy(ops, dtype):
    rows = [LOGITS, [0.0] * 4, [0.0, 0.0, -torch.inf, -torch.inf], [5.0, -torch.inf, -torch.inf, -torch.inf]]
    logprobs, entropy = ops.token_logprobs(torch.tensor(rows, dtype=dtype), torch.tensor([3, 1, 0, 0]))
    expected = [-0.916290731874155, -1.38629436111989, -0.693147180559945, 0.0]
    assert logprobs.tolist() == pytest.approx(expected, abs=1e-6)
    expected = [1.27985422583367, 1.38629436111989, 0.693147180559945, 0.0]
    assert entropy.tolist() == pytest.approx(expected, abs=1e-6)
