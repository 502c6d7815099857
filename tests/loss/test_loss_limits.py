"""Hand-written values where ratio, logprob or KL is infinite: a limit where there is one, else it shows.

They hold for the fused op on both kinds of kernels and for the reference. Notation as in `grpo_loss`: l is
-inf where the target's logit is, rho = exp(l - old) is infinite at old = -1e4, in float32 and float64 alike.
"""

import math

import pytest
import torch

from tests.loss.batches import LOSSES, fitting, loss_and_gradient, offsets

LN_03 = math.log(0.3)
ROW = [math.log(p) for p in (1, 2, 3, 4)]  # probabilities 0.1, 0.2, 0.3, 0.4; the target is the third
IMPOSSIBLE = [0.0, 0.0, -math.inf, 0.0]  # the target has probability 0
INFINITE_RATIO = -1e4
INF, NAN = math.inf, math.nan


def batch_loss(ops, rows, old, advantages, lengths=None, **options):
    """Loss and gradient of tokens whose target is the third id; each is a row unless `lengths` say else."""
    n = len(rows)
    floats = {k: torch.tensor(v, dtype=torch.float64) for k, v in options.items() if isinstance(v, list)}
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        torch.tensor(rows, dtype=ops.dtype),
        torch.full((n,), 2),
        torch.tensor(old, dtype=torch.float64),
        offsets(lengths or (1,) * n),
        torch.tensor(advantages, dtype=torch.float64),
        **fitting(1, **{**options, **floats}),
    )
    return output, gradient


def assert_value(ops, got, expected):
    assert got.item() == pytest.approx(expected, abs=3 * ops.error, nan_ok=True)


# rho = 0: the clipped losses give min(0, 0.8) of A = 1 and max(0, 0.8) of A = -1; sapo 4 / tau sigmoid(-tau).
GONE = dict.fromkeys(LOSSES, (0.0, 0.8)) | {
    "cispo": (0.0, 0.0),
    "sapo": (-1.0757656854799804, 0.987524193591794),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("side", [0, 1])
def test_a_target_of_probability_zero_has_a_finite_term_and_no_gradient(ops, loss, side):
    output, gradient = batch_loss(ops, [IMPOSSIBLE], [-1.0], [1.0 - 2 * side], loss=loss)
    assert output.logprobs.item() == -INF
    assert_value(ops, output.loss, GONE[loss][side])
    assert (gradient == 0).all()


# rho = inf: loss, A, options, value, slope d loss / d l
OVERFLOWN = [
    *((loss, 1.0, {}, -1.2, 0.0) for loss in LOSSES if loss not in ("cispo", "sapo")),
    *((loss, 0.0, {}, 0.0, 0.0) for loss in LOSSES),
    ("grpo", -1.0, {"delta": 2.0}, 2.0, 0.0),
    ("grpo", -1.0, {"dual_clip": 3.0}, 3.0, 0.0),
    ("gspo", -1.0, {"delta": 2.0}, 2.0, 0.0),
    ("cispo", 1.0, {"clip_high": 5.0}, 6.0198640216296805, -5.0),
    ("cispo", -1.0, {"clip_high": 5.0}, -6.0198640216296805, 5.0),
    ("sapo", 1.0, {}, -4.0, 0.0),
    ("sapo", -1.0, {}, 3.8095238095238095, 0.0),
]


@pytest.mark.parametrize(("loss", "advantage", "options", "value", "slope"), OVERFLOWN)
def test_an_infinite_ratio_that_is_bounded_gives_a_finite_term(ops, loss, advantage, options, value, slope):
    output, gradient = batch_loss(ops, [ROW], [INFINITE_RATIO], [advantage], loss=loss, **options)
    assert_value(ops, output.loss, value)
    assert gradient[0].tolist() == pytest.approx(
        [slope * s for s in (-0.1, -0.2, 0.7, -0.4)], abs=5 * ops.error
    )


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo"])
def test_an_infinite_ratio_that_nothing_bounds_shows(ops, loss):
    assert batch_loss(ops, [ROW], [INFINITE_RATIO], [-1.0], loss=loss)[0].loss.item() == INF


# A second token, in a row of its own, of ratio 1 and A = 1: half of its own term is the loss.
ALONE = dict.fromkeys(LOSSES, -0.5) | {"cispo": -LN_03 / 2, "sapo": -1.0}
MASKED = {"engine_logprobs": [INFINITE_RATIO - 1, LN_03], "engine_mode": "mask", "clip_high": 5.0}  # weight e
TRUNCATED = {"engine_logprobs": [0.0, LN_03], "clip_high": 5.0}  # weight exp(-1e4)
DROPPED = {
    "masked token": MASKED,
    "masked row": {**MASKED, "engine_level": "row"},
    "truncated token": TRUNCATED,
    "truncated row": {**TRUNCATED, "engine_level": "row"},
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", DROPPED)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_dropped_token_adds_nothing_even_at_infinite_ratio(ops, loss, how, advantage):
    output, gradient = batch_loss(
        ops, [ROW, ROW], [INFINITE_RATIO, LN_03], [advantage, 1.0], loss=loss, **DROPPED[how]
    )
    assert_value(ops, output.loss, ALONE[loss])
    assert (gradient[0] == 0).all()
    assert gradient[1, 2].item() == pytest.approx(-0.35, abs=ops.error)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", DROPPED)
def test_a_dropped_token_adds_nothing_even_at_probability_zero(ops, loss, how):
    rows = [IMPOSSIBLE, ROW]
    output, gradient = batch_loss(ops, rows, [INFINITE_RATIO, LN_03], [-1.0, 1.0], loss=loss, **DROPPED[how])
    assert_value(ops, output.loss, ALONE[loss])
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [{}, MASKED], ids=["kept", "dropped"])
@pytest.mark.parametrize("advantage", [1.0, 0.0])
def test_a_nan_that_comes_in_goes_on(ops, loss, options, advantage):
    output, _ = batch_loss(ops, [ROW, ROW], [NAN, LN_03], [advantage, 1.0], loss=loss, **options)
    assert output.loss.isnan()


def test_a_nan_engine_logprob_is_not_a_mask(ops):
    options = {"engine_logprobs": [NAN], "engine_mode": "mask"}
    assert batch_loss(ops, [ROW], [LN_03], [1.0], **options)[0].loss.isnan()


# rows, old, ref, the three estimators' rho KL. exp(-1) = 0.36787944117144233.
WEIGHTED = {
    "probability zero": (IMPOSSIBLE, -1.0, -2.0, (0.0, 0.0, 0.36787944117144233)),
    "probability zero, impossible before": (IMPOSSIBLE, -1.0, -1e4, (0.0, 0.0, 0.0)),
    # rho = exp(-200): 0 in float32, where exp(199) is infinite
    "vanishing": (ROW, LN_03 + 200, LN_03 + 199, (0.0, 0.0, 0.36787944117144233)),
    "impossible for the reference": (ROW, LN_03, -INF, (INF, INF, INF)),
    "infinite ratio": (ROW, INFINITE_RATIO, -3.0, (INF, INF, INF)),
    "infinite ratio, KL below 0": (ROW, INFINITE_RATIO, 0.0, (-INF, INF, INF)),
}


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("case", WEIGHTED)
def test_a_weighted_kl_takes_its_limit(ops, kind, case):
    row, old, ref, values = WEIGHTED[case]
    options = {"kl": f"k{kind + 1}", "kl_coef": 0.5, "kl_weighted": True, "ref_logprobs": [ref]}
    output, gradient = batch_loss(ops, [row], [old], [0.0], **options)
    assert_value(ops, output.kl, values[kind])
    assert_value(ops, output.loss, 0.5 * values[kind])
    if math.isfinite(values[kind]):  # rho (KL + KL') vanishes with rho
        assert gradient[0].tolist() == pytest.approx([0.0] * 4, abs=ops.error)


def test_the_slope_of_a_weighted_k3_keeps_its_digits_where_the_kl_is_large(ops):
    """rho = 1 at l - ref = -19.5: the slope is rho (l - ref), between parts of exp(19.5) that cancel."""
    options = {"kl": "k3", "kl_coef": 1.0, "kl_weighted": True, "ref_logprobs": [LN_03 + 19.5]}
    _, gradient = batch_loss(ops, [ROW], [LN_03], [0.0], **options)
    assert gradient[0].tolist() == pytest.approx([1.95, 3.9, -13.65, 7.8], rel=20 * ops.error)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_an_infinite_ratio_times_no_divergence_is_none(ops, kind):
    logprob, _ = ops.token_logprobs(torch.tensor([ROW], dtype=ops.dtype), torch.tensor([2]))
    options = {"kl": kind, "kl_coef": 0.5, "kl_weighted": True, "ref_logprobs": logprob.tolist()}
    output, gradient = batch_loss(ops, [ROW], [INFINITE_RATIO], [0.0], **options)
    assert output.loss.item() == output.kl.item() == 0
    if kind != "k1":  # whose derivative is rho itself
        assert (gradient == 0).all()


@pytest.mark.parametrize(("kind", "value"), [("k1", -INF), ("k2", INF), ("k3", INF)])
def test_a_plain_kl_at_probability_zero_is_infinite(ops, kind, value):
    options = {"kl": kind, "kl_coef": 0.5, "ref_logprobs": [-1.0]}
    assert batch_loss(ops, [IMPOSSIBLE], [-1.0], [0.0], **options)[0].loss.item() == value


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_an_infinite_kl_that_is_only_watched_leaves_the_loss_alone(ops, loss, weighted):
    options = {"kl_weighted": weighted, "ref_logprobs": [-INF, LN_03], "clip_high": 5.0}
    output, gradient = batch_loss(ops, [ROW, ROW], [LN_03, LN_03], [0.0, 1.0], loss=loss, **options)
    assert output.kl.item() == INF
    assert_value(ops, output.loss, ALONE[loss])
    assert (gradient[0] == 0).all()
    assert gradient[1, 2].item() == pytest.approx(-0.35, abs=ops.error)


@pytest.mark.parametrize(("advantage", "value"), [(1.0, 0.0), (-1.0, 0.8)])
def test_one_token_of_probability_zero_takes_a_gspo_row_to_ratio_zero(ops, advantage, value):
    rows, old = [IMPOSSIBLE, ROW], [-1.0, LN_03]
    output, gradient = batch_loss(ops, rows, old, [advantage], lengths=(2,), loss="gspo")
    assert_value(ops, output.loss, value)
    assert (gradient == 0).all()


# The row's ratio vanishes more slowly than exp(-l) grows, so k3's limit is infinite there.
@pytest.mark.parametrize(("kind", "value"), [("k1", 0.0), ("k2", 0.0), ("k3", INF)])
def test_a_weighted_kl_of_a_gspo_row_with_a_token_of_probability_zero(ops, kind, value):
    rows, old = [IMPOSSIBLE, ROW], [-1.0, LN_03]
    options = {"kl": kind, "kl_coef": 0.5, "kl_weighted": True, "ref_logprobs": [-2.0, -2.0]}
    output, gradient = batch_loss(ops, rows, old, [0.0], lengths=(2,), loss="gspo", **options)
    assert_value(ops, output.loss, value)
    if math.isfinite(value):
        assert (gradient == 0).all()
