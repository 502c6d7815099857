"""`budget_step_`: the budget machine of every row, one decode step.

B rows. Timed as calls one after another, where the host is the limit, and on a GPU as one launch and as nodes
of a CUDA graph, where the device is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import elastic.reference
from bench.harness.case import Case, Variant
from bench.harness.device import Device
from elastic import Budget, Markers, ops
from elastic.budget.machine import Machine, compile_budgets

START, END, WORD, EOS, PAD = 2, 3, 6, 0, 1
CALLS = 200
MARKERS = Markers((START,), (END,))


def captured(call: Callable[[], object], calls: int) -> Callable[[int], object]:
    """Replays a CUDA graph of that many calls."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()  # loads kernels, which a capture may not
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return lambda _: graph.replay()


def many(call: Callable[[], object], calls: int) -> Callable[[int], object]:
    def run(_: int) -> None:
        for _ in range(calls):
            call()

    return run


class EagerBudget:
    """The least that budgets take, in plain tensor operations.

    Markers of one token, no notices, no extensions, a bare end marker. thinking, used: [B] int64;
    in_solution: [B] bool.
    """

    def __init__(self, thinking: list[int], solution: int, device: torch.device) -> None:
        self.thinking = torch.tensor(thinking, device=device)
        self.solution = solution
        self.used = torch.zeros_like(self.thinking)
        self.in_solution = torch.zeros_like(self.thinking, dtype=torch.bool)

    def restart(self) -> None:
        self.used.zero_()
        self.in_solution.zero_()

    def step_(self, tokens: Tensor) -> None:
        cut = ~self.in_solution & (self.used >= self.thinking)
        done = self.in_solution & (self.used >= self.solution)
        tokens.masked_fill_(cut, END).masked_fill_(done, PAD)
        ended = ~self.in_solution & (tokens == END)
        self.used.add_(1).masked_fill_(ended, 0)
        self.in_solution |= ended


def thinking_rows(rows: int) -> tuple[Machine, Tensor]:
    """A machine and the states of rows at the start of their thinking; their budgets outlast a bench."""
    budgets = [Budget(10**6 + i % 7, 100, closing=(WORD, END)) for i in range(rows)]
    machine, index = compile_budgets(budgets, MARKERS, None, [EOS], PAD)
    return machine, ops.new_state(index, machine)


def case(device: Device, rows: int) -> Case:
    """The state machine alone, on rows that think."""
    machine, first = thinking_rows(rows)
    there = machine.to(device.torch)
    state, tokens = first.to(device.torch, copy=True), torch.full((rows,), WORD, device=device.torch)
    active = torch.zeros(1, dtype=torch.int32, device=device.torch)
    plain = EagerBudget([10**6 + i % 7 for i in range(rows)], 100, device.torch)

    def step() -> Tensor:
        return ops.budget_step_(tokens, state, there, active=active)

    def eager() -> None:
        plain.step_(tokens)

    def restart(_: int) -> None:
        state.copy_(first)
        tokens.fill_(WORD)
        plain.restart()

    def check_tokens(_: object) -> None:
        assert tokens.eq(WORD).all(), "a row in the middle of thinking was changed"

    def check_eager(_: object) -> None:
        check_tokens(_)
        assert plain.used.eq(CALLS).all(), f"expected {CALLS} tokens counted, got {plain.used[0]}"

    def check(_: object) -> None:
        expected, emitted = first.clone(), torch.full((rows,), WORD)
        for _ in range(CALLS):
            ops.budget_step_(emitted, expected, machine)
        assert torch.equal(state.cpu(), expected), "the state differs from the CPU's"
        assert torch.equal(tokens.cpu(), emitted), "the tokens differ from the CPU's"
        assert active.item() == rows, f"expected {rows} active rows, got {active.item()}"

    variants = [
        Variant("eager", lambda: many(eager, CALLS), check_eager, restart, CALLS),
        Variant("elastic, call after call", lambda: many(step, CALLS), check, restart, CALLS),
        Variant(
            "tokens.add_(0), call after call",
            lambda: many(lambda: tokens.add_(0), CALLS),
            prepare=restart,
            repeats=CALLS,
            floor=True,
        ),
    ]
    if device.is_cuda:
        variants += [
            Variant("elastic, one launch", lambda: lambda _: step(), prepare=restart),
            Variant("elastic, graph node", lambda: captured(step, CALLS), check, restart, CALLS),
            Variant(
                "tokens.add_(0), graph node",
                lambda: captured(lambda: tokens.add_(0), CALLS),
                repeats=CALLS,
                floor=True,
            ),
        ]
    else:

        def by_row(_: int) -> Tensor:
            return elastic.reference.budget_step_(tokens, state, there, active=active)

        variants.append(Variant("Python, row by row", lambda: by_row, check_tokens, restart))
    return Case("budget_step_", f"B={rows}", "int32", variants)
