"""`linear_token_logprobs`: the logprobs and entropies of a head's logits, and their gradients, in chunks."""

import pytest
import torch
from torch.nn.functional import linear

from elastic import ops, reference
from tests.loss.batches import DTYPES, assert_gradient_near, assert_near
from tests.loss.heads import HEAD_ERROR, random_head, value_error
from tests.loss.kept import random_sets
from tests.loss.memory import peak_bytes

pytestmark = pytest.mark.usefixtures("kernels")

N = 19
OPTIONS = [{}, {"temperature": 0.6}, {"softcap": 3.0, "temperature": torch.linspace(0.5, 2, N)}]
# Chunks of one token, of a number that leaves a rest, and one chunk for all.
CHUNKS = (1, 5, None)


def run(op, head, **options):
    """logprobs, entropy, and the gradients of a weighted sum of both on hidden, weight and bias."""
    leaves = head.leaves()
    outputs = op(leaves.hidden, leaves.weight, head.batch.targets, bias=leaves.bias, **options)
    weights = torch.linspace(-1, 2, 2 * N, dtype=torch.float64).view(2, N)
    total = sum((w * x).sum() for w, x in zip(weights, outputs, strict=True))
    return [x.detach() for x in outputs], torch.autograd.grad(total, leaves.tensors())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "temperature", "softcap"])
@pytest.mark.parametrize("chunk_tokens", CHUNKS)
def test_values_and_gradients_match_float64(dtype, bias, options, chunk_tokens):
    head = random_head(dtype, bias=bias)
    outputs, gradients = run(ops.linear_token_logprobs, head, **options, chunk_tokens=chunk_tokens)
    exact_outputs, exact_gradients = run(reference.linear_token_logprobs, head.double(), **options)
    for name, got, expected in zip(("logprobs", "entropy"), outputs, exact_outputs, strict=True):
        assert_near(got, expected, 2 * value_error(dtype), name)  # temperatures down to 0.5
    for leaf, got, expected in zip(head.tensors(), gradients, exact_gradients, strict=True):
        assert got.dtype == leaf.dtype
        assert_gradient_near(got, expected, 2 * HEAD_ERROR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_chunk_gives_what_token_logprobs_gives_to_the_bit(dtype):
    head = random_head(dtype, bias=True)
    expected = ops.token_logprobs(linear(head.hidden, head.weight, head.bias), head.batch.targets, 0.7)
    found = ops.linear_token_logprobs(head.hidden, head.weight, head.batch.targets, 0.7, bias=head.bias)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)


def test_two_ids_of_equal_logits_share_the_probability():
    hidden, weight = torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logprobs, entropy = ops.linear_token_logprobs(hidden, weight, torch.tensor([1]))
    assert logprobs.item() == pytest.approx(-0.6931472, abs=1e-6)  # log 1/2
    assert entropy.item() == pytest.approx(0.6931472, abs=1e-6)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)])
@pytest.mark.parametrize("output", [0, 1])
def test_only_what_is_needed_is_differentiated(needed, output):
    head = random_head(bias=True)
    tensors = [x.clone().requires_grad_(i in needed) for i, x in enumerate(head.tensors())]
    whole = [x.clone().requires_grad_() for x in head.tensors()]
    totals = [
        ops.linear_token_logprobs(h, w, head.batch.targets, bias=b, chunk_tokens=5)[output].sum()
        for h, w, b in (tensors, whole)
    ]
    expected = torch.autograd.grad(totals[1], whole)
    totals[0].backward()
    for i, x in enumerate(tensors):
        assert (x.grad is None) == (i not in needed)
        assert x.grad is None or torch.equal(x.grad, expected[i])


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_tokens_give_empty_outputs_and_zero_gradients(dtype):
    hidden, weight = torch.zeros(0, 4, dtype=dtype).requires_grad_(), torch.ones(11, 4, dtype=dtype)
    weight.requires_grad_()
    logprobs, entropy = ops.linear_token_logprobs(hidden, weight, torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropy.shape == (0,)
    gradients = torch.autograd.grad(logprobs.sum() + entropy.sum(), (hidden, weight))
    assert [x.shape for x in gradients] == [(0, 4), (11, 4)]
    assert (gradients[1] == 0).all()


def test_strided_operands_are_taken_as_they_are():
    head = random_head()
    wide, tall = torch.zeros(N, 32), torch.zeros(16, 101)
    wide[:, ::2], tall[:] = head.hidden, head.weight.t()
    expected = ops.linear_token_logprobs(head.hidden, head.weight, head.batch.targets, chunk_tokens=7)
    found = ops.linear_token_logprobs(wide[:, ::2], tall.t(), head.batch.targets, chunk_tokens=7)
    for got, want in zip(found, expected, strict=True):
        assert_near(got, want, 1e-5, "strided")


def test_an_id_of_probability_zero_has_logprob_minus_infinity_and_no_gradient():
    head, bias = random_head(), torch.zeros(101)
    bias[7] = -torch.inf
    bias.requires_grad_()
    targets = torch.where(head.batch.targets == 7, 8, head.batch.targets)
    logprobs, entropy = ops.linear_token_logprobs(head.hidden, head.weight, targets, bias=bias)
    assert torch.autograd.grad((logprobs + entropy).sum(), bias)[0][7] == 0
    sevens = torch.full_like(targets, 7)
    assert (ops.linear_token_logprobs(head.hidden, head.weight, sevens, bias=bias)[0] == -torch.inf).all()


@pytest.mark.cpu_kernels
def test_gradcheck():
    head = random_head(torch.float64, lengths=(5,), groups=(1,), vocab=7, width=3, bias=True).leaves()
    for temperature, cap in ((0.7, None), (torch.linspace(0.5, 2, 5).double(), 5.0)):
        assert torch.autograd.gradcheck(
            lambda h, w, b, t=temperature, c=cap: ops.linear_token_logprobs(
                h, w, head.batch.targets, t, bias=b, softcap=c, chunk_tokens=2
            ),
            (head.hidden, head.weight, head.bias),
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    head = random_head(dtype, bias=True).leaves()
    small = torch.float64 if dtype == torch.float64 else torch.float32
    kept = tuple(random_sets(head.batch.targets, 101).values())
    for bias, temperatures, cap in ((None, None, None), (head.bias, torch.full((N,), 0.5, dtype=small), 5.0)):
        arguments = (head.hidden, head.weight, bias, head.batch.targets, 1.0, temperatures, cap, *kept, 5)
        torch.library.opcheck(torch.ops.elastic.linear_token_logprobs.default, arguments)
    plain = [x.detach() for x in head.tensors()]
    arguments = (*plain, head.batch.targets)
    _, entropy, *saved = torch.ops.elastic.linear_token_logprobs(*arguments, 1.0, None, None, *kept, 5)
    torch.library.opcheck(
        torch.ops.elastic.linear_token_logprobs_backward.default,
        (
            *arguments,
            *saved,
            entropy,
            torch.ones_like(entropy),
            None,
            1.0,
            None,
            None,
            *kept,
            5,
            [True, False, True],
        ),
    )


def test_a_second_derivative_raises():
    head = random_head().leaves()
    logprobs, _ = ops.linear_token_logprobs(head.hidden, head.weight, head.batch.targets)
    (gradient,) = torch.autograd.grad(logprobs.square().sum(), head.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="linear_token_logprobs: second derivatives"):
        gradient.sum().backward()


@pytest.mark.cpu_kernels
def test_memory_is_one_chunk_of_logits_forward_and_two_backward():
    tokens, vocab, chunk = 512, 4096, 32
    hidden, weight = torch.randn(tokens, 8), torch.randn(vocab, 8, requires_grad=True)
    targets = torch.zeros(tokens, dtype=torch.int64)

    def forward():
        return ops.linear_token_logprobs(hidden, weight, targets, chunk_tokens=chunk)

    def both():
        sum(forward()).sum().backward()

    one = chunk * vocab * 4
    assert one <= peak_bytes(forward) < 2 * one
    assert 2 * one <= peak_bytes(both) < 4 * one


def test_under_autocast_operands_are_cast_as_a_linear_layers_are():
    head = random_head(bias=True)
    arguments = (head.hidden, head.weight, head.batch.targets)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = ops.linear_token_logprobs(*arguments, bias=head.bias)
    low = [x.bfloat16() for x in head.tensors()]
    expected, _ = ops.linear_token_logprobs(low[0], low[1], head.batch.targets, bias=low[2])
    assert torch.equal(found, expected)


BAD = [
    ({"hidden": torch.zeros(4)}, ValueError, r"hidden: expected \[N, H\], got \[4\]"),
    ({"weight": torch.zeros(37, 3)}, ValueError, r"weight: expected \[V, 4\] on cpu, got \[37, 3\]"),
    ({"weight": torch.zeros(37, 4).double()}, TypeError, "weight: expected the dtype of hidden"),
    ({"bias": torch.zeros(36)}, ValueError, r"bias: expected \[37\] float32 on cpu, got \[36\]"),
    ({"targets": torch.zeros(5, dtype=torch.int64)}, ValueError, r"targets: expected \[6\] int64"),
    ({"chunk_tokens": 0}, ValueError, "chunk_tokens: expected at least 1, got 0"),
    ({"chunk_tokens": 2.0}, TypeError, "chunk_tokens: expected an integer, got 2.0"),
    ({"softcap": -2.0}, ValueError, "softcap: expected a value from 1e-30 to 1e30, got -2"),
    ({"temperature": 0.0}, ValueError, "temperature: expected a value from 1e-30 to 1e30, got 0"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(changes, error, message):
    targets = torch.zeros(6, dtype=torch.int64)
    arguments = {"hidden": torch.zeros(6, 4), "weight": torch.zeros(37, 4), "targets": targets, **changes}
    with pytest.raises(error, match=f"^linear_token_logprobs: {message}"):
        ops.linear_token_logprobs(**arguments)
