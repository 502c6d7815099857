"""What README says of all ops: `torch.compile(fullgraph=True)` takes them, and the reference has a twin."""

import inspect

import pytest
import torch

from elastic import Budget, Markers, ops, reference

V = 12
TARGETS = torch.tensor([3, 0, 11, 5, 7, 2])
OFFSETS = torch.tensor([0, 2, 6])  # two completions, of two and four tokens
MACHINE, FORCING = (Budget(t, 2).compile(Markers(start=(4,), end=(5,)), eos_ids=(1,)) for t in (3, 0))
ROWS = torch.zeros(2, dtype=torch.int64)


def state():
    return ops.new_state(ROWS, MACHINE)


def floats(*shape):
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


def leaf(*shape):
    return floats(*shape).requires_grad_()


# name -> what is compiled and its arguments, made anew each time, as some are written to.
CASES = {
    "new_state": lambda: (lambda rows: ops.new_state(rows, MACHINE), ROWS),
    "budget_step_": lambda: (
        lambda tokens, s: (ops.budget_step_(tokens, s, MACHINE), tokens, s),
        *(torch.tensor([6, 7]), state()),
    ),
    "force_logits_": lambda: (
        lambda x, s: (ops.force_logits_(x, s, FORCING), x),
        *(floats(2, V), ops.new_state(ROWS, FORCING)),
    ),
    "forced_next": lambda: (lambda s: ops.forced_next(s, MACHINE), state()),
    "replay": lambda: (
        lambda tokens, s: ops.replay(tokens, torch.tensor([3, 4]), s, MACHINE),
        *(torch.tensor([[6, 7, 5, 0], [6, 6, 6, 5]]), state()),
    ),
    "sample": lambda: (
        lambda x, s: (*ops.sample(x, ROWS + 8, ROWS, top_p=0.9, state=s, machine=MACHINE), s),
        *(floats(2, V), state()),
    ),
    "end_thinking_": lambda: (lambda s, rows: (ops.end_thinking_(s, rows), s), state(), ROWS[:1]),
    "group_advantage": lambda: (ops.group_advantage, floats(4), torch.tensor([0, 1, 4])),
    "token_logprobs": lambda: (lambda x: ops.token_logprobs(x, TARGETS), leaf(6, V)),
    "linear_token_logprobs": lambda: (
        lambda h, w, b: ops.linear_token_logprobs(h, w, TARGETS, bias=b, chunk_tokens=4),
        *(leaf(6, 3), leaf(V, 3), leaf(V)),
    ),
    "grpo_loss": lambda: (
        lambda x: ops.grpo_loss(x, TARGETS, floats(6), OFFSETS, floats(2)).loss,
        leaf(6, V),
    ),
    "linear_grpo_loss": lambda: (
        lambda h, w: ops.linear_grpo_loss(h, w, TARGETS, floats(6), OFFSETS, floats(2)).loss,
        *(leaf(6, 3), leaf(V, 3)),
    ),
}
READERS = {"finish_reason", "is_done", "last_phase", "state_phase", "thinking_cut"}  # plain torch on a state
READERS |= {"solution_used", "thinking_used"}
OPS = [name for name in ops.__all__ if name not in READERS and not inspect.isclass(getattr(ops, name))]


def flat(outputs):
    return [x for x in (outputs if isinstance(outputs, tuple) else (outputs,)) if x is not None]


@pytest.mark.parametrize("name", OPS)
def test_an_op_compiles_without_a_graph_break_and_gives_the_same(name):
    function, *arguments = CASES[name]()
    expected = flat(function(*arguments))
    function, *arguments = CASES[name]()
    found = flat(torch.compile(function, fullgraph=True, backend="aot_eager")(*arguments))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    if leaves := [x for x in arguments if x.requires_grad]:
        total = sum(x.sum() for x in found if x.requires_grad)
        assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("name", OPS)
def test_an_op_has_a_twin_in_the_reference(name):
    assert callable(getattr(reference, name))
