"""How `linear_grpo_loss` sits in autograd, what it keeps in memory, and bad input."""

from itertools import combinations

import pytest
import torch

from elastic import ops
from tests.loss.batches import DTYPES, assert_gradient_near, fitting
from tests.loss.heads import random_head, run
from tests.loss.kept import random_sets
from tests.loss.memory import peak_bytes, scratch_of_products
from tests.loss.test_grpo_autograd import OPTIONS

pytestmark = pytest.mark.usefixtures("kernels")


def call(head, **options):
    batch = head.batch
    keywords = {**batch.keywords(), "bias": head.bias, "chunk_tokens": 4, **fitting(**options)}
    return ops.linear_grpo_loss(head.hidden, head.weight, *batch.positional(batch.logits)[1:], **keywords)


FROZEN = [names for size in (1, 2) for names in combinations(("hidden", "weight", "bias"), size)]


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("frozen", FROZEN, ids="-".join)
def test_frozen_parts_get_no_gradient_and_change_no_other(loss, frozen):
    head = random_head(bias=True)
    _, gradients = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4)
    leaves = head.leaves()
    for name in frozen:
        getattr(leaves, name).requires_grad_(False)
    call(leaves, loss=loss).loss.backward()
    for name, expected in zip(("hidden", "weight", "bias"), gradients, strict=True):
        got = getattr(leaves, name).grad
        assert got is None if name in frozen else torch.equal(got, expected)


def products(loss="grpo", chunk_tokens=4096, **needs):
    """How often the op multiplies matrices; N = 19."""
    head = random_head()
    head.batch.mask = None
    head.batch.rewards = torch.tensor([1.0, 0, 1, 0, 0])  # every row has an advantage
    leaves = head.leaves()
    for name, needed in needs.items():
        getattr(leaves, name).requires_grad_(needed)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output = call(leaves, chunk_tokens=chunk_tokens, loss=loss)
        if output.loss.requires_grad:
            output.loss.backward()
    return sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))


def test_three_matrix_products_and_fewer_where_something_is_frozen():
    assert products() == 3
    assert products(weight=False) == 2
    assert products(hidden=False) == 2
    assert products(hidden=False, weight=False) == 1
    assert products(chunk_tokens=10) == 2 * 3


def test_gspo_makes_the_logits_twice_but_for_one_chunk():
    assert products(loss="gspo") == 3
    assert products(loss="gspo", chunk_tokens=10) == 2 * 3 + 1


def test_tokens_without_gradient_leave_the_products():
    """Of 12 tokens 4 are masked and 4 have no advantage: one product sees 8, the others 4."""
    head = random_head(lengths=(4, 4, 4), groups=(3,))
    head.batch.mask = torch.arange(12) >= 4
    arguments = head.batch.positional(head.batch.logits)[1:]
    leaves = head.leaves()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as profile:
        ops.linear_grpo_loss(
            leaves.hidden, leaves.weight, *arguments, torch.tensor([1.0, 1, 0]), mask=head.batch.mask
        )
    shapes = [event.input_shapes[:2] for event in profile.events() if event.name == "aten::mm"]
    width, vocab = 16, 101
    forward = [[4, width], [width, vocab]]
    assert sorted(shapes) == sorted(
        [forward, forward, [[vocab, 4], [4, width]], [[4, vocab], [vocab, width]]]
    )


def test_only_the_loss_is_differentiable():
    output = call(random_head().leaves())
    assert output.loss.requires_grad
    assert not any(getattr(output, name).requires_grad for name in output._fields if name != "loss")


def test_without_gradients_values_are_the_same():
    head = random_head(bias=True).leaves()
    expected = call(head)
    with torch.no_grad():
        got = call(head)
    assert not got.loss.requires_grad
    for name in got._fields:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name).detach())


@pytest.mark.parametrize("factor", [3.0, -0.5, 0.0])
def test_the_incoming_gradient_scales(factor):
    head = random_head(bias=True)
    _, gradients = run(ops.linear_grpo_loss, head, chunk_tokens=4)
    leaves = head.leaves()
    loss = call(leaves).loss
    (loss * factor).backward(retain_graph=True)
    for leaf, expected in zip(leaves.tensors(), gradients, strict=True):
        torch.testing.assert_close(leaf.grad, expected * factor)
    (loss * factor).backward()
    for leaf, expected in zip(leaves.tensors(), gradients, strict=True):
        torch.testing.assert_close(leaf.grad, 2 * expected * factor)


@pytest.mark.parametrize("loss", ["dapo", "gspo"])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_compiles_into_one_graph(loss, factor):
    head = random_head(bias=True)
    expected = run(ops.linear_grpo_loss, head, loss=loss, chunk_tokens=4)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(hidden, weight, bias):
        arguments = head.batch.positional(head.batch.logits)[1:]
        output = ops.linear_grpo_loss(
            hidden, weight, *arguments, **head.batch.keywords(), bias=bias, loss=loss, chunk_tokens=4
        )
        return output.loss * factor, output.logprobs

    leaves = head.leaves()
    value, logprobs = compiled(*leaves.tensors())
    value.backward()
    assert value.item() == pytest.approx(expected[0].loss.item() * factor, abs=1e-7)
    assert torch.equal(logprobs, expected[0].logprobs)
    for leaf, gradient in zip(leaves.tensors(), expected[1], strict=True):
        torch.testing.assert_close(leaf.grad, gradient * factor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_opcheck(dtype, loss):
    head = random_head(dtype, bias=True, vocab=37)
    batch = head.batch
    tensors = (*batch.positional(batch.logits)[1:], None, batch.rewards, batch.group_offsets, batch.mask)
    kept = random_sets(batch.targets, 37).values()
    tensors = (*tensors, batch.ref_logprobs, batch.engine_logprobs, None, *kept)
    options = {**OPTIONS, "loss": loss, "chunk_tokens": 4, "gather": True}
    for needs in ([True] * 3, [True, False, False], [False, True, False], [False] * 3):
        leaves = [x.clone().requires_grad_(need) for x, need in zip(head.tensors(), needs, strict=True)]
        torch.library.opcheck(
            torch.ops.elastic.linear_grpo_loss.default,
            (*leaves, *tensors),
            {**options, "needs_gradient": needs},
        )


@pytest.mark.cpu_kernels  # of torch, not of kernels
def test_many_chunks_of_bfloat16_do_not_stall_the_head_gradient():
    """1,024 chunks that all push the same way: a bfloat16 sum stops growing at 256 equal terms."""
    n, vocab, width = 1024, 5, 4
    weight = torch.zeros(vocab, width).bfloat16().requires_grad_()
    arguments = (torch.ones(n, dtype=torch.int64), torch.full((n,), -1.6094379), torch.tensor([0, n]))
    output = ops.linear_grpo_loss(
        torch.ones(n, width).bfloat16(), weight, *arguments, torch.ones(1), chunk_tokens=1
    )
    (gradient,) = torch.autograd.grad(output.loss, weight)
    expected = torch.full((vocab, width), 0.2)  # softmax is uniform: 1/5, and 1/5 - 1 at the target
    expected[1] = -0.8
    assert_gradient_near(gradient, expected, 4e-3)
    naive = torch.zeros(vocab, width).bfloat16()
    for _ in range(n):
        naive += (expected / n).bfloat16()
    assert (naive.float() - expected).norm() > 0.5 * expected.norm(), "the case shows the difference"


@pytest.mark.cpu_kernels  # of torch, not of kernels
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_one_chunk_and_the_outputs_whatever_n_is(loss, dtype):
    vocab, width, chunk, item = 20_000, 8, 16, dtype.itemsize
    peaks = {}
    for n in (128, 512):
        head = random_head(dtype, lengths=(n // 2, n // 2), groups=(2,), vocab=vocab, width=width).leaves()
        head.batch.rewards = torch.tensor([1.0, 0.0])
        arguments = head.batch.positional(head.batch.logits)[1:]
        head.batch.logits = None

        def step(head=head, arguments=arguments):
            output = ops.linear_grpo_loss(
                head.hidden, head.weight, *arguments, **head.batch.keywords(), chunk_tokens=chunk, loss=loss
            )
            output.loss.backward()

        step()  # what a library prepares once and keeps is not the op's
        peaks[n] = peak_bytes(step)
    head_gradient = vocab * width * (item + (4 if item == 2 else 0))
    per_token = 2 * width * item + 128  # hidden states' gradient, outputs, scratch
    scratch = max(scratch_of_products(dtype, chunk, vocab, width))  # the library's, on any processor
    allowed = 1.1 * (chunk * vocab * item + head_gradient) + scratch
    assert peaks[128] < allowed + 128 * per_token
    assert peaks[512] - peaks[128] < 384 * per_token, "grows with more than the outputs"


@pytest.mark.cpu_kernels  # of torch, not of kernels
def test_the_memory_test_sees_materialised_logits():
    n, vocab = 128, 20_000
    head = random_head(lengths=(n,), groups=(1,), vocab=vocab, width=8)

    def step():
        logits = head.leaves().hidden @ head.weight.t()
        ops.grpo_loss(*head.batch.positional(logits), torch.ones(1), inplace=True).loss.backward()

    assert peak_bytes(step) > n * vocab * 4


N, H, V = 6, 4, 37
BAD = [
    ({"hidden": [[0.0]]}, TypeError, "hidden: expected a tensor, got list"),
    ({"hidden": torch.zeros(N, H).long()}, TypeError, "hidden: expected float32, bfloat16, float16"),
    ({"hidden": torch.zeros(1, N, H)}, ValueError, r"hidden: expected \[N, H\], got \[1, 6, 4\]"),
    (
        {"weight": torch.zeros(V, H).bfloat16()},
        TypeError,
        "weight: expected the dtype of hidden, .* bfloat16",
    ),
    ({"weight": torch.zeros(H, V)}, ValueError, r"weight: expected \[V, 4\] on cpu, got \[4, 37\]"),
    ({"weight": torch.zeros(0, H)}, ValueError, "weight: expected a vocabulary of at least one id"),
    ({"weight": torch.zeros(V, H, device="meta")}, ValueError, "weight: .* on cpu, got one on meta"),
    ({"bias": torch.zeros(V + 1)}, ValueError, r"bias: expected \[37\] float32 on cpu, got \[38\]"),
    ({"bias": torch.zeros(V).double()}, TypeError, r"bias: expected \[37\] float32 on cpu, got .* float64"),
    ({"chunk_tokens": 0}, ValueError, "chunk_tokens: expected at least 1, got 0"),
    pytest.param(
        {"targets": torch.full((N,), V)},
        ValueError,
        r"targets: expected ids in \[0, 37\), got 37 at token 0",
        marks=pytest.mark.cpu_kernels,  # CUDA ops do not read contents back
    ),
    ({"old_logprobs": torch.zeros(5)}, ValueError, r"old_logprobs: expected \[6\] float32 on cpu, got \[5\]"),
    ({"advantages": None}, ValueError, "advantages: expected exactly one of advantages and"),
    ({"loss": "ppo"}, ValueError, "loss: expected grpo"),
    ({"softcap": -1.0}, ValueError, "softcap: expected a value from 1e-30 to 1e30"),
    ({"inplace": True}, TypeError, "unexpected keyword argument 'inplace'"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(changes, error, message):
    given = {
        "hidden": torch.zeros(N, H),
        "weight": torch.zeros(V, H),
        "targets": torch.zeros(N, dtype=torch.int64),
        "old_logprobs": torch.zeros(N),
        "row_offsets": torch.tensor([0, 2, N]),
        "advantages": torch.ones(2),
        **changes,
    }
    with pytest.raises(error, match=message):
        ops.linear_grpo_loss(**given)
