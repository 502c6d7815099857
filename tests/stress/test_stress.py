"""A thousand of `make stress`'s cases, 500 on the CPU kernels and 500 on CUDA's; deliberate faults are found.

`make stress SEED=0 CASE=number KERNELS=kernels` makes one of them alone.
"""

import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch

from elastic import ops
from elastic.budget import Phase
from tests.stress import advantages, budgets, losses, sampling
from tests.stress.call import Call, Fault
from tests.stress.cases import check, chooses
from tests.stress.draw import Draw

CASES, TESTS = 500, 10
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("first", range(0, CASES, CASES // TESTS))
def test_random_calls_give_what_the_reference_gives(kernels, first, request):
    with ExitStack() as stack:
        choose = chooses(request.getfixturevalue("shim"), stack) if kernels != "cpu" else None
        for case in range(first, first + CASES // TESTS):
            if choose is not None:
                choose(case)
            try:
                check(0, kernels, case)
            except Fault as fault:
                pytest.fail(f"case {case}: {fault}\n{fault.call.text()}", pytrace=False)


def one_logsumexp(logits, targets, temperature=1.0, softcap=None):
    """float32 as one would write it: what an offset of the logits takes from it must be found."""
    z = logits.float() if softcap is None else softcap * torch.tanh(logits.float() / softcap)
    z = z / (temperature[:, None] if isinstance(temperature, torch.Tensor) else temperature)
    logsumexp = torch.logsumexp(z, -1, keepdim=True)
    logprobs = z - logsumexp
    p = logprobs.exp()
    return logprobs.gather(1, targets[:, None])[:, 0], -(p * torch.where(p > 0, logprobs, 0.0)).sum(-1)


def off(relative, place):
    """An op whose output number `place` is off a little."""

    def wrap(op):
        def wrong(*arguments, **keywords):
            outputs = list(op(*arguments, **keywords))
            outputs[place] = outputs[place] * (1 + relative)
            return outputs

        return wrong

    return wrap


def all_off(op):
    return lambda **keywords: op(**keywords) * 1.0001


def one_row_further(op):
    """Rows of logits that lie apart are read as if they did not."""

    def wrong(logits, **keywords):
        return op(logits.as_strided(logits.shape, (logits.shape[1], 1)), **keywords)

    return wrong


def other_draws(op):
    def wrong(seeds, **keywords):
        return op(seeds=seeds + (seeds == seeds.max()), **keywords)

    return wrong


def uncounted(op):
    """A step that now and then loses a token of a budget."""

    def wrong(state, **keywords):
        source = op(state=state, **keywords)
        state[(state[:, 2] > 3).nonzero()[:1, 0], 2] -= 1
        return source

    return wrong


def not_waited(op):
    """A step that forgets that a cut has waited for a character."""

    def wrong(state, **keywords):
        source = op(state=state, **keywords)
        state[:, 1] &= ~(3 << 22)
        return source

    return wrong


def nothing_thought(op):
    def wrong(thinking_used=None, **keywords):
        return op(**keywords)

    return wrong


def not_ended(op):
    """Thinking that a notice or an opening is in the way of is not ended."""

    def wrong(state, rows):
        before = state.clone()
        op(state=state, rows=rows)
        waiting = (before[:, 1] & 15) != int(Phase.THINKING)
        state[waiting] = before[waiting]

    return wrong


FAULTS = {
    "token_logprobs: one logsumexp": (losses.token_logprobs, "token_logprobs", lambda op: one_logsumexp),
    "token_logprobs: rows": (losses.token_logprobs, "token_logprobs", one_row_further),
    "token_logprobs: logprobs": (losses.token_logprobs, "token_logprobs", off(3e-5, 0)),
    "token_logprobs: entropy and its gradient": (losses.token_logprobs, "token_logprobs", off(1e-4, 1)),
    "grpo_loss: loss and gradient": (losses.grpo_loss, "grpo_loss", off(1e-4, 0)),
    "grpo_loss: kl": (losses.grpo_loss, "grpo_loss", off(1e-4, 5)),
    "linear_token_logprobs: logprobs": (
        losses.linear_token_logprobs,
        "linear_token_logprobs",
        off(1e-3, 0),
    ),
    "linear_grpo_loss: loss and gradients": (losses.linear_grpo_loss, "linear_grpo_loss", off(1e-4, 0)),
    "group_advantage": (advantages.group_advantage, "group_advantage", all_off),
    "sample: another row's number": (sampling.sample, "sample", other_draws),
    "budget_step_: a token not counted": (budgets.budget_ops, "budget_step_", uncounted),
    "budget_step_: a token waited not counted": (budgets.budget_ops, "budget_step_", not_waited),
    "new_state: tokens thought before": (budgets.budget_ops, "new_state", nothing_thought),
    "end_thinking_: in other phases": (budgets.budget_ops, "end_thinking_", not_ended),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_deliberate_fault_is_found_within_fifty_cases(monkeypatch, name):
    make, op, wrap = FAULTS[name]
    sound, found = getattr(ops, op), False
    for case in range(50):
        monkeypatch.setattr(ops, op, sound)
        make(Draw(f"{name} {case}", small=True))
        monkeypatch.setattr(ops, op, wrap(sound))
        try:
            make(Draw(f"{name} {case}", small=True))
        except Fault as fault:
            found = fault.call.op == op
            break
    assert found


@pytest.mark.parametrize("make", [losses.token_logprobs, losses.grpo_loss, losses.linear_grpo_loss])
def test_a_printed_call_makes_the_same_outputs_and_gradients(monkeypatch, make):
    calls = []
    run = Call.run_backward
    monkeypatch.setattr(Call, "run_backward", lambda call: (calls.append(call), run(call))[1])
    for case in range(12):
        with suppress(Fault):
            make(Draw(f"text {case}", small=True))
    for call in calls:
        made: dict = {}
        exec(call.text(), made)
        outputs, gradients = run(call)
        for got, want in zip(made["outputs"], outputs, strict=True):
            torch.testing.assert_close(got.detach(), want, rtol=0, atol=0, equal_nan=True)
        for got, want in zip(made["gradients"], gradients, strict=True):
            got = got.as_strided(want.shape, want.stride()) if got.shape == want.shape else got
            assert got.nan_to_num().abs().sum() == want.nan_to_num().abs().sum()


def test_one_case_is_repeated_by_seed_and_number():
    command = [sys.executable, "-m", "tests.stress", "--seed=3", "--case=17"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "stress: cpu: 1 case of seed 3: as the reference\n"
