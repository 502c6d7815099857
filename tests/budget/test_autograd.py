"""What the in-place ops tell autograd: versions, refusals, no gradient that is silently wrong."""

import pytest
import torch
from torch import Tensor

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets

pytestmark = pytest.mark.usefixtures("kernels")

X, VOCAB = 6, 10
MACHINE = compile_budgets([Budget(2, 2), Budget(0, 1)], Markers((2,), (3,)), None, [0], 9)[0]
OVERWRITTEN = "modified by an inplace operation"
REMEDY = r"force_logits_: logits: .* torch.no_grad\(\), or with logits.detach\(\)"


def states() -> Tensor:
    """A free row and a forced one."""
    return ops.new_state([0, 1], MACHINE)


def version_steps(call, *tensors: Tensor) -> list[int]:
    """By how much a call moves the version of each tensor."""
    before = [tensor._version for tensor in tensors]
    call()
    return [tensor._version - old for tensor, old in zip(tensors, before, strict=True)]


def test_every_tensor_that_an_op_writes_gets_a_new_version_and_no_other():
    tokens, state, logits = torch.full((2,), X), states(), torch.zeros(2, VOCAB)
    active, broken = torch.zeros(2, 1, dtype=torch.int32).unbind()
    rows = torch.arange(2)
    tables = [MACHINE.tables, MACHINE.token_flags]
    steps = version_steps(
        lambda: ops.budget_step_(tokens, state, MACHINE, active=active), tokens, state, active, *tables
    )
    assert steps == [1, 1, 1, 0, 0]
    assert version_steps(lambda: ops.end_thinking_(state, rows), state, rows) == [1, 0]
    assert version_steps(lambda: ops.force_logits_(logits, state, MACHINE), logits, state, *tables) == [
        1,
        0,
        0,
        0,
    ]
    keywords = {"state": state, "machine": MACHINE, "active": active.clone(), "broken": broken.clone()}
    steps = version_steps(
        lambda: ops.sample(logits, rows, rows, **keywords),
        state,
        keywords["active"],
        keywords["broken"],
        logits,
        rows,
        *tables,
    )
    assert steps == [1, 1, 1, 0, 0, 0, 0]
    plain = broken.clone()
    assert version_steps(lambda: ops.sample(logits, rows, rows, broken=plain), plain, logits) == [1, 0]
    history, lengths = torch.full((2, 3), X), torch.tensor([1, 2])
    steps = version_steps(lambda: ops.replay(history, lengths, states(), MACHINE), history, lengths, *tables)
    assert steps == [0, 0, 0, 0]
    assert version_steps(lambda: ops.forced_next(state, MACHINE), state, *tables) == [0, 0, 0]


@pytest.mark.parametrize("how", ["no_grad", "detach", "row of a detached view"])
def test_a_backward_that_saved_forced_logits_raises(how):
    logits = torch.randn(2, VOCAB, requires_grad=True).exp()  # exp saves its result
    if how == "no_grad":
        with torch.no_grad():
            ops.force_logits_(logits, states(), MACHINE)
    elif how == "detach":
        ops.force_logits_(logits.detach(), states(), MACHINE)
    else:
        ops.force_logits_(logits.detach()[1:], states()[1:], MACHINE)
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        logits.sum().backward()


def made_without_gradients(parameter: Tensor) -> Tensor:
    with torch.no_grad():
        return parameter[:, :VOCAB]


@pytest.mark.parametrize(
    "of",
    [
        lambda p: p,
        lambda p: p[:, :VOCAB],
        lambda p: p[:, :VOCAB].view(2, VOCAB),
        lambda p: p.chunk(1)[0],
        lambda p: p * 2,
        lambda p: (p * 2)[:, :VOCAB],
        made_without_gradients,
    ],
    ids=[
        "leaf",
        "view",
        "view of a view",
        "chunk",
        "computed",
        "view of computed",
        "view of no_grad",
    ],
)
def test_logits_that_autograd_follows_are_refused_while_gradients_are_on(of):
    parameter = torch.nn.Parameter(torch.randn(2, VOCAB + 1))
    logits = of(parameter)
    plain = logits.detach()
    before = plain.clone()
    with pytest.raises(ValueError, match=REMEDY):
        ops.force_logits_(logits, states(), MACHINE)
    assert torch.equal(plain, before)
    with torch.no_grad():
        ops.force_logits_(logits, states(), MACHINE)
    assert plain[1].isneginf().sum() == plain.shape[1] - 1


def test_state_and_tokens_may_be_written_in_inference_mode():
    with torch.inference_mode():
        tokens, state, logits = torch.full((2,), X), states(), torch.zeros(2, VOCAB + 1)
        active, broken = torch.zeros(2, 1, dtype=torch.int32)
        ops.force_logits_(logits[:, :VOCAB], state, MACHINE)
        ops.budget_step_(tokens, state, MACHINE, active=active)
        rows = torch.arange(2)
        ops.sample(logits, rows, rows, state=state, machine=MACHINE, active=active, broken=broken)
    assert tokens.tolist() == [X, 3]
    assert ops.replay(torch.full((2, 1), X), torch.ones(2).long(), states(), MACHINE)[3].tolist() == [-1, 0]


def test_a_sample_has_no_gradient():
    logits, rows = torch.randn(2, VOCAB, requires_grad=True), torch.arange(2)
    plain = ops.sample(logits, rows, rows, torch.tensor(0.5, requires_grad=True))
    under_budget = ops.sample(logits, rows, rows, state=states(), machine=MACHINE, most_kept=4)
    for output in (*plain[:3], *under_budget):
        assert not output.requires_grad
