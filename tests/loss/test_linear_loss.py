"""`linear_grpo_loss` against the reference in float64 and against `grpo_loss` on materialised logits."""

import pytest
import torch
from torch.nn.functional import linear

from elastic import ops, reference
from tests.loss.batches import DTYPES, LOSSES, fitting
from tests.loss.heads import HEAD_ERROR, assert_same_results, random_head, run, value_error

pytestmark = pytest.mark.usefixtures("kernels")


def assert_matches_reference(head, chunk_tokens=6, **options):
    dtype = head.hidden.dtype
    expected = run(reference.linear_grpo_loss, head.double(), **options)
    got = run(ops.linear_grpo_loss, head, chunk_tokens=chunk_tokens, **options)
    assert [g.dtype for g in got[1]] == [dtype] * len(got[1])
    assert_same_results(got, expected, value_error(dtype), HEAD_ERROR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias", [False, True])
def test_every_loss_matches_float64(loss, dtype, bias):
    # gspo's shared ratio and sapo's gate magnify what rounding does to 16-bit logits: seeds without kinks.
    assert_matches_reference(random_head(dtype, bias=bias, seed=1), loss=loss)


OPTIONS = [
    {"kl_coef": 0.1, "ref_logprobs": ...},
    {"kl_coef": 0.1, "kl": "k2", "kl_weighted": True, "ref_logprobs": ...},
    {"entropy_coef": 0.02},
    {"temperature": 0.7, "softcap": 4.0},
    {"engine_logprobs": ..., "engine_high": 1.2, "engine_low": 0.8},
    {"engine_logprobs": ..., "engine_high": 3.0, "engine_level": "row", "engine_mode": "mask"},
    {"delta": 1.3, "dual_clip": 1.1, "clip_low": 0.1, "clip_high": 0.4},
    {"num_tokens": 100, "num_rows": 12, "mask": None},
    {"skip_zero_advantage": True},
    {"gather": False},
    {"advantage": "rloo", "gather": False, "entropy_coef": 0.02},
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_every_option_matches_float64(loss, options):
    sampled = {key: options[key] for key in ("temperature", "softcap") if key in options}
    assert_matches_reference(random_head(seed=2, **sampled), loss=loss, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("chunk_tokens", [1, 5, 7, 19, 4096])
@pytest.mark.parametrize("gather", [True, False])
def test_chunks_of_any_size_give_the_materialised_loss(dtype, loss, chunk_tokens, gather):
    head = random_head(dtype, bias=True)

    def materialised(hidden, weight, *arguments, bias, **options):
        return ops.grpo_loss(linear(hidden, weight, bias), *arguments, **options)

    expected = run(materialised, head, loss=loss)
    got = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=chunk_tokens, gather=gather)
    # bfloat16: every chunk's product is rounded before chunks add up
    error = 1e-6 if dtype == torch.float32 else 8e-3
    assert_same_results(got, expected, 1e-5 if dtype == torch.float32 else 6e-2, error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_temperature_a_token(dtype):
    head = random_head(dtype)
    temperature = torch.rand(len(head.hidden), generator=torch.Generator().manual_seed(1)) + 0.5
    assert_matches_reference(head, temperature=temperature)


@pytest.mark.cpu_kernels  # float64
# Without cispo, whose first factor is a constant to autograd, not to finite differences.
@pytest.mark.parametrize("loss", [x for x in LOSSES if x != "cispo"])
@pytest.mark.parametrize(
    "options", [{}, {"kl_coef": 0.1, "ref_logprobs": ...}, {"entropy_coef": 0.1}], ids=str
)
def test_gradcheck(loss, options):
    head = random_head(torch.float64, lengths=(2, 3), groups=(2,), vocab=7, width=3, bias=True, seed=1)
    batch = head.batch
    # Ratios inside the clip range: finite differences must not cross a kink.
    batch.old_logprobs = reference.token_logprobs(batch.logits, batch.targets)[0] - 0.05
    batch.rewards = torch.tensor([1.0, 0.0]).double()
    keywords = {k: getattr(batch, k) if v is ... else v for k, v in options.items()}

    def loss_of(hidden, weight, bias):
        output = ops.linear_grpo_loss(
            hidden,
            weight,
            *batch.positional(batch.logits)[1:],
            **batch.keywords(),
            **keywords,
            bias=bias,
            **fitting(loss=loss),
            chunk_tokens=2,
        )
        return output.loss

    assert torch.autograd.gradcheck(loss_of, [x.requires_grad_() for x in head.tensors()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_hidden_states_are_used_where_they_lie(dtype):
    head = random_head(dtype)
    n, width = head.hidden.shape
    expected = run(ops.linear_grpo_loss, head, chunk_tokens=4)
    wide = torch.full((n, width + 5), 7.0, dtype=dtype)
    wide[:, 2 : width + 2] = head.hidden
    leaf = wide.requires_grad_()
    weight = head.weight.clone().requires_grad_()
    output = ops.linear_grpo_loss(
        leaf[:, 2 : width + 2],
        weight,
        *head.batch.positional(head.batch.logits)[1:],
        **head.batch.keywords(),
        chunk_tokens=4,
    )
    gradient, head_gradient = torch.autograd.grad(output.loss, [leaf, weight])
    assert torch.equal(gradient[:, 2 : width + 2], expected[1][0])
    assert torch.equal(head_gradient, expected[1][1])
    assert (gradient[:, :2] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [0, 3])
def test_no_tokens_are_a_loss_of_zero(loss, rows):
    hidden = torch.zeros(0, 4, requires_grad=True)
    weight = torch.ones(11, 4, requires_grad=True)
    nothing = torch.zeros(0)
    offsets = torch.zeros(rows + 1, dtype=torch.int64)
    output = ops.linear_grpo_loss(
        hidden, weight, nothing.long(), nothing, offsets, torch.ones(rows), **fitting(loss=loss)
    )
    output.loss.backward()
    assert output.loss.item() == output.kl.item() == output.clip_fraction.item() == 0
    assert hidden.grad.shape == (0, 4)
    assert (weight.grad == 0).all()
    assert output.logprobs.shape == output.entropy.shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gather", [True, False])
def test_all_masked_is_a_loss_of_zero_and_no_gradient(loss, gather):
    head = random_head(bias=True)
    head.batch.mask[:] = False
    output, gradients = run(ops.linear_grpo_loss, head, loss=loss, gather=gather)
    assert output.loss.item() == 0
    assert all((g == 0).all() for g in gradients)
    assert (output.logprobs == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_masked_tokens_hold_does_not_matter(loss):
    head = random_head()
    output, gradients = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4)
    forced = ~head.batch.mask
    head.hidden[forced] = torch.nan
    head.batch.targets[forced] = -100
    head.batch.old_logprobs[forced] = torch.inf
    again, poisoned = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4)
    assert torch.equal(again.loss, output.loss)
    assert (poisoned[0][forced] == 0).all()
    for one, other in zip(poisoned, gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_rewards_give_no_gradient_but_logprobs(loss):
    head = random_head()
    head.batch.rewards[:] = 0.1
    output, gradients = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4)
    assert all((g == 0).all() for g in gradients)
    expected = reference.token_logprobs(head.batch.logits, head.batch.targets)[0]
    mask = head.batch.mask
    torch.testing.assert_close(output.logprobs[mask], expected[mask])
    skipped, _ = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4, skip_zero_advantage=True)
    assert (skipped.logprobs == 0).all()
