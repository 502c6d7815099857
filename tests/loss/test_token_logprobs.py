"""`token_logprobs` against the float64 reference: values, gradients, layouts, odd rows, bad input."""

import pytest
import torch

from elastic import ops, reference
from tests.loss.batches import DTYPES, GRADIENT_ERROR, VALUE_ERROR, assert_gradient_near, assert_near

pytestmark = pytest.mark.usefixtures("kernels")

# Which code path each width reaches: less than one vector; one vector and a rest; one block of 4,096 exactly;
# a block and one element; several blocks and a rest.
VOCABULARIES = (1, 5, 37, 4096, 4097, 10_001)


def case(dtype, vocab, rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocab, generator=generator) * 4).to(dtype)
    return logits, torch.randint(vocab, (rows,), generator=generator), generator


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"softcap": 3.0, "temperature": 0.6}], ids=str)
def test_values_and_gradients_match_float64(dtype, vocab, options):
    logits, targets, generator = case(dtype, vocab)
    weights = torch.randn(2, len(targets), generator=generator, dtype=torch.float64)

    def run(op, x):
        x = x.clone().requires_grad_()
        logprobs, entropy = op(x, targets, **options)
        total = (weights[0] * logprobs).sum() + (weights[1] * entropy).sum()
        return logprobs.detach(), entropy.detach(), torch.autograd.grad(total, x)[0]

    exact = run(reference.token_logprobs, logits.double())
    got = run(ops.token_logprobs, logits)
    assert_near(got[0], exact[0], VALUE_ERROR[dtype], "logprobs")
    assert_near(got[1], exact[1], VALUE_ERROR[dtype], "entropy")
    assert got[2].dtype == dtype
    if vocab > 1:  # with one id the gradient is 0
        assert_gradient_near(got[2], exact[2], GRADIENT_ERROR[dtype])


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_logprobs_are_never_positive(vocab):
    logits, _, _ = case(torch.float32, vocab, rows=50)
    for temperature in (1.0, 0.7, 1.3):
        logprobs, _ = ops.token_logprobs(logits, logits.argmax(-1), temperature)
        assert (logprobs <= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_rows_are_read_in_place(kernels, dtype):
    logits, targets, _ = case(dtype, 107)
    window = logits[1::2, 3:100]  # odd row offsets, which break every alignment
    assert window.stride() == (214, 1)
    targets = targets[:3].clamp(max=96)
    for got, expected in zip(
        ops.token_logprobs(window, targets), ops.token_logprobs(window.contiguous(), targets), strict=True
    ):
        # CUDA kernels sum in the order of 16-byte words, and those lie elsewhere in an odd row.
        assert_near(got, expected, 0 if kernels == "cpu" else VALUE_ERROR[dtype], "strided")


@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_of_probability_zero_get_no_gradient(dtype):
    logits, targets, _ = case(dtype, 301)
    logits[:, ::3] = -torch.inf
    targets = targets // 3 * 3 + 1
    x, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    logprobs, entropy = ops.token_logprobs(x, targets)
    expected = reference.token_logprobs(exact, targets)
    assert_near(logprobs.detach(), expected[0].detach(), VALUE_ERROR[dtype], "logprobs")
    assert_near(entropy.detach(), expected[1].detach(), VALUE_ERROR[dtype], "entropy")
    gradient = torch.autograd.grad((logprobs + entropy).sum(), x)[0]
    assert (gradient[:, ::3] == 0).all()
    assert_gradient_near(gradient, torch.autograd.grad(sum(expected).sum(), exact)[0], GRADIENT_ERROR[dtype])


def test_a_target_of_probability_zero_has_logprob_minus_infinity():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert ops.token_logprobs(logits, torch.tensor([2]))[0].item() == -torch.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 36, 4097])
def test_nan_and_infinity_stay_in_their_row(dtype, bad, place):
    logits, targets, _ = case(dtype, 4099)
    logits[2, place] = bad
    clean, _ = ops.token_logprobs(torch.where(logits.isfinite(), logits, 0.0), targets)
    logprobs, entropy = ops.token_logprobs(logits, targets)
    assert logprobs[2].isnan()
    assert entropy[2].isnan()
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(logprobs[rest], clean[rest])


def test_a_row_of_minus_infinity_is_nan():
    logits = torch.full((1, 9), -torch.inf)
    assert all(x.isnan().all() for x in ops.token_logprobs(logits, torch.tensor([0])))


def test_a_block_of_minus_infinity_does_not_hide_the_others():
    logits = torch.full((1, 9000), -torch.inf)
    logits[0, 4096 * 2 :] = 0.0
    logprobs, entropy = ops.token_logprobs(logits, torch.tensor([8999]))
    count = 9000 - 8192
    assert logprobs.item() == pytest.approx(-torch.tensor(float(count)).log().item(), abs=1e-6)
    assert entropy.item() == pytest.approx(-logprobs.item(), abs=1e-5)


def test_large_logits_keep_their_digits():
    logits = torch.tensor([[10_000.0, 10_001.0, 9_999.0]])
    expected = reference.token_logprobs(logits.double() - 10_000, torch.tensor([0]))
    got = ops.token_logprobs(logits, torch.tensor([0]))
    assert_near(got[0], expected[0], 1e-6, "logprobs")
    assert_near(got[1], expected[1], 1e-6, "entropy")


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_tokens_give_empty_outputs(dtype):
    x = torch.zeros(0, 11, dtype=dtype).requires_grad_()
    logprobs, entropy = ops.token_logprobs(x, torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropy.shape == (0,)
    assert torch.autograd.grad(logprobs.sum(), x)[0].shape == (0, 11)


def test_only_what_is_needed_is_differentiated():
    logits, targets, _ = case(torch.float32, 40)
    logprobs, entropy = ops.token_logprobs(logits, targets)
    assert not logprobs.requires_grad
    assert not entropy.requires_grad
    x = logits.clone().requires_grad_()
    logprobs, entropy = ops.token_logprobs(x, targets)
    (only,) = torch.autograd.grad(logprobs.sum(), x, retain_graph=True)
    both = torch.autograd.grad(logprobs.sum() + 0 * entropy.sum(), x)[0]
    assert torch.equal(only, both)


@pytest.mark.cpu_kernels
def test_gradcheck():
    logits, targets, generator = case(torch.float64, 7)
    temperature = torch.rand(len(targets), generator=generator) + 0.5
    for t in (0.7, temperature):
        for cap in (None, 5.0):
            assert torch.autograd.gradcheck(
                lambda x, t=t, cap=cap: ops.token_logprobs(x, targets, t, softcap=cap),
                logits.requires_grad_(),
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    logits, targets, _ = case(dtype, 37)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for temperatures in (None, torch.full((len(targets),), 0.5, dtype=wide)):
        x = logits.clone().requires_grad_()
        for cap in (None, 5.0):
            arguments = (x, targets, 1.0, temperatures, cap)
            torch.library.opcheck(torch.ops.elastic.token_logprobs.default, arguments)
    _, entropy, maximum, log_sum = torch.ops.elastic.token_logprobs(logits, targets, 1.0)
    torch.library.opcheck(
        torch.ops.elastic.token_logprobs_backward.default,
        (logits, targets, maximum, log_sum, entropy, torch.ones_like(entropy), None, 1.0),
    )


def test_compiles_into_one_graph():
    logits, targets, _ = case(torch.float32, 37)

    def total(x):
        logprobs, entropy = ops.token_logprobs(x * 2, targets, 0.9)
        return logprobs.sum() + entropy.sum()

    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total(x).backward()
    torch.compile(total, fullgraph=True, backend="aot_eager")(y).backward()
    assert torch.equal(x.grad, y.grad)


N = 6
BAD = [
    (
        {"targets": torch.zeros(5, dtype=torch.int64)},
        ValueError,
        r"targets: expected \[6\] int64 on cpu, got \[5\]",
    ),
    (
        {"targets": torch.zeros(N, dtype=torch.int32)},
        TypeError,
        r"targets: expected \[6\] int64 on cpu, got \[6\] int32",
    ),
    (
        {"targets": torch.zeros(N, dtype=torch.int64, device="meta")},
        ValueError,
        "targets: expected a tensor on cpu, got one on meta",
    ),
    ({"targets": [0] * N}, TypeError, "targets: expected a tensor, got list"),
    ({"logits": torch.zeros(N, 37).int()}, TypeError, "logits: expected float32, bfloat16, float16 .* int32"),
    ({"logits": torch.zeros(N * 37)}, ValueError, r"logits: expected \[N, V\], got \[222\]"),
    ({"logits": torch.zeros(37, N).t()}, ValueError, "logits: expected a last dimension of stride 1"),
    ({"logits": torch.zeros(N, 0)}, ValueError, "logits: expected a vocabulary of at least one id"),
    ({"softcap": -2.0}, ValueError, "softcap: expected a value from 1e-30 to 1e30, got -2"),
    ({"temperature": 0.0}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got 0"),
    ({"temperature": -1.0}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got -1"),
    ({"temperature": torch.inf}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got inf"),
    ({"temperature": torch.ones(5)}, ValueError, r"temperature: expected \[6\] float32 on cpu, got \[5\]"),
    (
        {"temperature": torch.ones(N, dtype=torch.bool)},
        TypeError,
        "temperature: expected real numbers, got bool",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(changes, error, message):
    arguments = {"logits": torch.zeros(N, 37), "targets": torch.zeros(N, dtype=torch.int64), **changes}
    with pytest.raises(error, match=message):
        ops.token_logprobs(**arguments)


@pytest.mark.cpu_kernels  # CUDA kernels answer NaN: contents are not read back
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": torch.full((N,), 37)}, r"targets: expected ids in \[0, 37\), got 37 at token 0"),
        ({"targets": torch.tensor([0, 0, 0, -1, 0, 0])}, r"got -1 at token 3"),
        ({"temperature": torch.tensor([1.0, 1, 0, 1, 1, 1])}, "temperature: .* got 0 at token 2"),
    ],
)
def test_bad_contents_are_named(changes, message):
    arguments = {"logits": torch.zeros(N, 37), "targets": torch.zeros(N, dtype=torch.int64), **changes}
    with pytest.raises(ValueError, match=message):
        ops.token_logprobs(**arguments)
