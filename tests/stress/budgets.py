"""Rows under random budgets: every op that reads or moves a state, against the reference, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from elastic import reference
from elastic.budget import Phase, Source
from tests.stress.call import Call, Expression, same
from tests.stress.draw import Draw, laid_out
from tests.stress.machines import VOCAB, machine_of, stream_of
from tests.stress.sampling import check_sample, dtype_of
from tests.stress.values import logits_of

INT32 = torch.int32


def budget_ops(draw: Draw) -> None:
    """A few rows from their first state on; each step is one call, or two."""
    machine, markers = machine_of(draw)
    rows = draw.randint(0, 4)
    first = state = new_state(draw, machine, rows)
    streams = [stream_of(draw, markers) for _ in range(rows)]
    longest = max(map(len, streams), default=1)
    steps = min(longest, draw.randint(1, 14 if draw.small else 40))
    history, sources = [], []
    ended = torch.where(draw.integers(3, rows) == 0, draw.integers(steps + 1, rows), -1)
    for step in range(steps + 1):
        state = end_thinking(draw, state, ended == step)
        if step == steps:
            break
        wanted = torch.tensor([s[step] if step < len(s) else 8 for s in streams], dtype=torch.int64)
        if draw.chance(0.2):
            force_logits(draw, machine, state)
        if draw.chance(0.1):  # a row that cannot be drawn ends no history: its next state is not gone on from
            check_sample(draw, likely(draw, state, wanted, True), placed(draw, state), machine)
        if draw.chance(0.3):
            logits = likely(draw, state, wanted, False)
            tokens, source, state = check_sample(draw, logits, placed(draw, state), machine)
        else:
            tokens, source, state = budget_step(draw, machine, state, wanted)
        history.append(tokens)
        sources.append(source)
    replay(draw, machine, first, torch.stack(history, 1), torch.stack(sources, 1), state, ended)


def new_state(draw: Draw, machine: Expression, rows: int) -> Tensor:
    count = len(machine.value.budgets)
    arguments = {"rows": laid_out(draw, draw.integers(count, rows)), "machine": machine}
    if count == 1 and draw.chance(0.3):
        arguments["rows"] = rows
    if draw.chance(0.5):
        legal = torch.tensor([Phase.OPENING, Phase.THINKING, Phase.SOLUTION, Phase.DONE], dtype=INT32)
        arguments["phase"] = laid_out(draw, legal[draw.integers(4, rows)])
        if draw.chance(0.5):
            used = torch.where(arguments["phase"] == Phase.OPENING, 0, draw.integers(draw.pick(3, 12), rows))
            arguments["thinking_used"] = laid_out(draw, used)
    else:
        opened = draw.pick(True, False, laid_out(draw, draw.integers(2, rows).bool()))
        arguments["starts_in_thinking"] = opened
        if opened is True and draw.chance(0.3):
            arguments["thinking_used"] = draw.randint(0, 6)
    call = Call("new_state", arguments)
    state, _ = call.run()
    same(call, "state", state, reference.new_state(**{**arguments, "machine": machine.value}))
    return state


def end_thinking(draw: Draw, state: Tensor, wanted: Tensor) -> Tensor:
    """The next state. Rows that nobody asked about stay as they are."""
    if not wanted.any() and draw.chance(0.9):
        return state
    rows = draw.pick(wanted, wanted.nonzero()[:, 0], wanted.nonzero()[:, 0].flip(0))
    arguments = {"state": placed(draw, state), "rows": laid_out(draw, rows)}
    call = Call("end_thinking_", arguments)
    _, left = call.run()
    expected = state.clone()
    reference.end_thinking_(expected, rows)
    same(call, "state", left["state"], expected)
    return expected


def placed(draw: Draw, state: Tensor) -> Tensor:
    """A copy among other rows, as slots are."""
    before, behind = draw.randint(0, 2), draw.randint(0, 2)
    memory = torch.full((before + len(state) + behind, 8), 77, dtype=INT32)
    memory[before : before + len(state)] = state
    return memory[before : before + len(state)]


def budget_step(
    draw: Draw, machine: Expression, state: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """tokens, source and the next state."""
    arguments = {"tokens": wanted, "state": placed(draw, state), "machine": machine}
    if draw.chance(0.7):
        arguments["active"] = torch.full((1,), -1, dtype=INT32)
    call = Call("budget_step_", arguments)
    source, left = call.run()
    expected = {k: v.clone() for k, v in arguments.items() if isinstance(v, Tensor)}
    same(call, "source", source, reference.budget_step_(**expected, machine=machine.value))
    for name, value in expected.items():
        same(call, name, left[name], value)
    return expected["tokens"], source, expected["state"]


def force_logits(draw: Draw, machine: Expression, state: Tensor) -> None:
    dtype = draw.pick(torch.float32, torch.bfloat16, torch.float16, *([] if draw.small else [torch.float64]))
    logits = laid_out(draw, draw.normal(len(state), VOCAB + draw.pick(0, 1, 28)).to(dtype))
    arguments = {"logits": logits, "state": laid_out(draw, state, False), "machine": machine}
    call = Call("force_logits_", arguments)
    _, left = call.run()
    expected = logits.clone()
    reference.force_logits_(expected, state, machine.value)
    same(call, "logits", left["logits"], expected)


def likely(draw: Draw, state: Tensor, wanted: Tensor, broken: bool) -> Tensor:
    """[B, V] logits under which the wanted tokens are likely to be drawn."""
    rows = len(state)
    logits = logits_of(draw, rows, VOCAB + draw.pick(0, 1, 28), dtype_of(draw), broken)
    if logits.stride(0) >= logits.shape[1] and draw.chance(0.8):
        logits.clamp_(-5, 5)[torch.arange(rows), wanted] = 12.0
    return logits


def replay(
    draw: Draw,
    machine: Expression,
    first: Tensor,
    tokens: Tensor,
    source: Tensor,
    last: Tensor,
    ended: Tensor,
) -> None:
    """Histories read back: whole ones lead to the live state, others to where they contradict the budget."""
    rows, steps = tokens.shape
    whole = draw.chance(0.5)
    tokens = tokens.clone()
    if rows and not whole:
        tokens[draw.randrange(rows), draw.randrange(steps)] = draw.randint(0, 11)
    lengths = (source != int(Source.PAD)).sum(1)
    if not whole:
        lengths = torch.minimum(lengths, draw.integers(steps + 1, rows))
    ended = torch.where(ended > lengths, -1, ended)  # of a row that was DONE: it changed nothing
    arguments = {"tokens": laid_out(draw, tokens, False), "lengths": laid_out(draw, lengths)}
    arguments |= {"state": laid_out(draw, first, False), "machine": machine}
    if whole or draw.chance(0.5):
        arguments["source"] = laid_out(draw, source, False)
    if whole or draw.chance(0.5):
        arguments["ended"] = laid_out(draw, ended)
    call = Call("replay", arguments)
    outputs, _ = call.run()
    expected = reference.replay(**{**arguments, "machine": machine.value})
    for name, got, want in zip(("phase", "source", "state", "mismatch"), outputs, expected, strict=True):
        same(call, name, got, want)
    if whole:
        running = (source != int(Source.PAD)).all(1)  # others went on to emit padding
        same(call, "state", outputs[2][running], last[running])
