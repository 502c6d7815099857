"""Jobs of a decode step: `budget_step_`, `force_logits_` and, where there is one, `sample`.

B rows, V vocabulary. The budget step is timed as one launch, as calls one after another, where the host is
the limit, and as nodes of a CUDA graph, where the device is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.gpu.device import Device
from bench.gpu.inputs import assert_near
from bench.gpu.job import Candidate, Job
from bench.gpu.loss_jobs import name_of, nbytes
from bench.results import installed
from elastic import Budget, Markers, ops
from elastic.machine import Machine, compile_budgets

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


def thinking_rows(rows: int) -> tuple[Machine, Tensor]:
    """A machine and the states of rows at the start of their thinking; their budgets outlast a bench."""
    budgets = [Budget(10**6 + i % 7, 100, closing=(WORD, END)) for i in range(rows)]
    machine, index = compile_budgets(budgets, MARKERS, None, [EOS], PAD)
    return machine, ops.new_state(index, machine)


def budget_job(device: Device, rows: int) -> Job:
    """The state machine alone, on rows that think."""
    machine, first = thinking_rows(rows)
    there = machine.to(device.torch)
    state, tokens = first.to(device.torch, copy=True), torch.full((rows,), WORD, device=device.torch)
    active = torch.zeros(1, dtype=torch.int32, device=device.torch)

    def step() -> Tensor:
        return ops.budget_step_(tokens, state, there, active=active)

    def many(call: Callable[[], object]) -> Callable[[int], object]:
        def run(_: int) -> None:
            for _ in range(CALLS):
                call()

        return run

    def restart(_: int) -> None:
        state.copy_(first)
        tokens.fill_(WORD)

    def check(_: object) -> None:
        expected, emitted = first.clone(), torch.full((rows,), WORD)
        for _ in range(CALLS):
            ops.budget_step_(emitted, expected, machine)
        assert torch.equal(state.cpu(), expected), "the state differs from the CPU's"
        assert torch.equal(tokens.cpu(), emitted), "the tokens differ from the CPU's"
        assert active.item() == rows, f"expected {rows} active rows, got {active.item()}"

    candidates = [
        Candidate("elastic, one launch", lambda: lambda _: step(), prepare=restart),
        Candidate("elastic, call after call", lambda: many(step), check, restart, CALLS),
        Candidate("tokens.add_(0), call after call", lambda: many(lambda: tokens.add_(0)), repeats=CALLS),
    ]
    if device.is_cuda:
        candidates += [
            Candidate("elastic, graph node", lambda: captured(step, CALLS), check, restart, CALLS),
            Candidate(
                "tokens.add_(0), graph node",
                lambda: captured(lambda: tokens.add_(0), CALLS),
                repeats=CALLS,
            ),
        ]
    return Job("budget_step_", f"B={rows}", "int32", candidates)


def force_job(device: Device, rows: int, vocab: int, dtype: torch.dtype) -> Job:
    """Every row is forced: all of the logits are written."""
    machine, index = compile_budgets([Budget(0, 8)], MARKERS, None, [EOS], PAD)
    machine = machine.to(device.torch)
    state = ops.new_state(index.expand(rows), machine)
    filled = torch.randn(rows, vocab, dtype=dtype, device=device.torch)
    logits = [filled.clone(), filled.clone()]
    ids = torch.full((rows, 1), END, device=device.torch)

    def refill(number: int) -> None:
        logits[number % 2].copy_(filled)
        device.flush_cache()

    def eager(number: int) -> Tensor:
        return logits[number % 2].fill_(-torch.inf).scatter_(1, ids, 0.0)

    def fused(number: int) -> Tensor:
        ops.force_logits_(logits[number % 2], state, machine)
        return logits[number % 2]

    def check(result: Tensor) -> None:
        assert result[:, END].eq(0).all(), "the forced token is not certain"
        assert result.isneginf().sum() == rows * (vocab - 1), "another token is possible"

    return Job(
        "force_logits_",
        f"B={rows} V={vocab}",
        name_of(dtype),
        [
            Candidate("eager", lambda: eager, check, refill),
            Candidate("elastic", lambda: fused, check, refill),
        ],
        bytes=nbytes(filled),
    )


def sample_job(device: Device, rows: int, vocab: int, dtype: torch.dtype, top_p: float) -> Job:
    """A draw for every row; eager is softmax, sort and cumsum where there is a filter, multinomial."""
    generator = torch.Generator(device.torch).manual_seed(7)
    logits = [
        torch.randn(rows, vocab, dtype=dtype, device=device.torch, generator=generator).mul_(3)
        for _ in range(4)
    ]
    seeds, positions = (torch.arange(rows, device=device.torch) for _ in range(2))
    machine, first = (part.to(device.torch) for part in thinking_rows(rows))
    state = first.clone()

    def flush(_: int) -> None:
        device.flush_cache()

    def eager(number: int) -> tuple[Tensor, Tensor]:
        logprobs = torch.log_softmax(logits[number % 4].float(), dim=-1)
        probs = logprobs.exp()
        if top_p < 1:
            ordered, order = probs.sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
            probs = torch.zeros_like(probs).scatter_(1, order, ordered)
        tokens = torch.multinomial(probs, 1)
        return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]

    def fused(number: int) -> tuple[Tensor, Tensor]:
        drawn = ops.sample(logits[number % 4], seeds, positions, top_p=top_p)
        return drawn.tokens, drawn.full_logprobs

    def restart(_: int) -> None:
        state.copy_(first)
        device.flush_cache()

    def fused_step(number: int) -> tuple[Tensor, Tensor]:
        drawn = ops.sample(logits[number % 4], seeds, positions, top_p=top_p, state=state, machine=machine)
        return drawn.tokens, drawn.full_logprobs

    def peer() -> Callable[[int], tuple[Tensor, Tensor]]:
        from flashinfer.sampling import sampling_from_probs, top_p_sampling_from_probs

        def run(number: int) -> tuple[Tensor, Tensor]:
            probs = torch.softmax(logits[number % 4].float(), dim=-1)
            drawn = top_p_sampling_from_probs(probs, top_p) if top_p < 1 else sampling_from_probs(probs)
            tokens = drawn.long()
            return tokens, probs.gather(1, tokens[:, None])[:, 0].log()

        return run

    def check(result: tuple[Any, Any]) -> None:
        tokens, logprobs = result
        assert tokens.min() >= 0, "a negative token"
        assert tokens.max() < vocab, "a token outside the vocabulary"
        exact = torch.log_softmax(logits[0].double(), dim=-1)
        assert_near("logprobs", logprobs, exact.gather(1, tokens[:, None])[:, 0])
        likelier = (exact.exp() * (exact > exact.gather(1, tokens[:, None]))).sum(-1)
        assert likelier.max() < top_p + 1e-3, "a token outside the nucleus"

    def check_step(result: tuple[Any, Any]) -> None:
        tokens, logprobs = result
        drawn = tokens != WORD  # forced in place of an EOS, or drawn
        assert_near(
            "logprobs",
            logprobs[drawn],
            torch.log_softmax(logits[0][drawn].double(), -1).gather(1, tokens[drawn, None])[:, 0],
        )

    candidates = [
        Candidate("eager", lambda: eager, check, flush),
        Candidate("elastic", lambda: fused, check, flush),
        Candidate("elastic, with the budget step", lambda: fused_step, check_step, restart),
    ]
    if device.is_cuda and installed("flashinfer-python"):
        candidates.append(Candidate("flashinfer", peer, check, flush))
    shape = f"B={rows} V={vocab}" + (f" top_p={top_p}" if top_p < 1 else "")
    return Job("sample", shape, name_of(dtype), candidates, bytes=nbytes(logits[0]))
