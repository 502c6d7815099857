"""Ops on CUDA kernels: no schedule changes a bit of what they write; bad contents; a launch that fails."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets
from tests.cuda_on_cpu.redirect import op_names, poisoned_outputs, redirected
from tests.loss.batches import LOSSES, fitting, loss_and_gradient, offsets, random_batch
from tests.loss.heads import random_head
from tests.loss.heads import run as run_head
from tests.loss.kept import random_sets

SEEDS = range(8)


@pytest.fixture(autouse=True)
def _on_shim(shim: ModuleType) -> Iterator[None]:
    with poisoned_outputs(), redirected():
        yield


def logprobs(dtype):
    batch = random_batch(dtype, vocab=1_001)
    x = batch.logits.requires_grad_()
    values, entropy = ops.token_logprobs(x, batch.targets, 0.7)
    return values, entropy, torch.autograd.grad((values - 0.5 * entropy).sum(), x)[0]


def grpo(dtype, loss):
    batch = random_batch(dtype)
    options = {"ref_logprobs": batch.ref_logprobs, "kl_coef": 0.1, "engine_logprobs": batch.engine_logprobs}
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), **fitting(loss=loss), **options
    )
    return *output, gradient


def kept(dtype, loss):
    batch = random_batch(dtype)
    sets = random_sets(batch.targets, 301)
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), loss=loss, **sets
    )
    return *output, gradient, *ops.token_logprobs(batch.logits, batch.targets, **sets)


def scaled(dtype):
    batch = random_batch(dtype)
    leaf = batch.logits.requires_grad_()
    loss = ops.grpo_loss(*batch.positional(leaf), **batch.keywords()).loss
    return torch.autograd.grad(loss * 0.3, leaf)


def linear(dtype):
    output, gradients = run_head(ops.linear_grpo_loss, random_head(dtype), loss="gspo", chunk_tokens=5)
    return *output, *gradients


def linear_logprobs(dtype):
    head = random_head(dtype, bias=True).leaves()
    arguments = (head.hidden, head.weight, head.batch.targets, 0.7)
    values, entropy = ops.linear_token_logprobs(*arguments, bias=head.bias, chunk_tokens=5)
    return values, entropy, *torch.autograd.grad((values - 0.5 * entropy).sum(), head.tensors())


def advantages(kind):
    sizes = (3, 8, 1, 400, 2)
    rewards = torch.randint(2, (sum(sizes),), generator=torch.Generator().manual_seed(0)).float()
    return (ops.group_advantage(rewards, offsets(sizes), kind),)


def sampled(dtype):
    generator = torch.Generator().manual_seed(0)
    logits, seeds = torch.randn(3, 1_001, generator=generator).to(dtype), torch.arange(3)
    filters = ((1.0, 0), (0.9, 0), (0.9, 20))
    drawn = [ops.sample(logits, seeds, seeds, top_p=p, top_k=k, most_kept=30) for p, k in filters]
    return [x for output in drawn for x in output if x is not None]  # no state: no source


def budget(rows):
    budgets = [Budget(i % 7, 1 + i % 5, closing=(7, 3, 7), on_reopen="forbid") for i in range(rows)]
    machine, index = compile_budgets(budgets, Markers((2,), (3,)), None, [0], 99)
    state, active = ops.new_state(index, machine), torch.zeros(1, dtype=torch.int32)
    logits, tokens = torch.ones(rows, 117), torch.full((rows,), 6)
    written = []
    for _ in range(8):
        ops.force_logits_(logits, state, machine)
        tokens = logits.argmax(-1)
        source = ops.budget_step_(tokens, state, machine, active=active)
        written += [source, tokens, active.clone(), ops.forced_next(state, machine)]
    history = torch.stack(written[1::4], 1)
    fresh = ops.new_state(index, machine)
    return *written, state, logits, *ops.replay(history, torch.full((rows,), 8), fresh, machine)


CASES = {
    **{f"logprobs {dtype}": (logprobs, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)},
    **{f"grpo_loss {loss}": (grpo, torch.bfloat16, loss) for loss in LOSSES},
    **{f"kept sets {loss}": (kept, torch.bfloat16, loss) for loss in ("grpo", "gspo")},
    "scaled gradient": (scaled, torch.float32),
    "linear_grpo_loss": (linear, torch.float32),
    "linear_token_logprobs": (linear_logprobs, torch.float32),
    **{f"sample {dtype}": (sampled, dtype) for dtype in (torch.float32, torch.bfloat16)},
    **{f"group_advantage {kind}": (advantages, kind) for kind in ("group", "batch", "passk")},
    "budget of 5 rows": (budget, 5),
    "budget of 1,100 rows": (budget, 1_100),
}


@pytest.mark.parametrize("name", CASES)
def test_no_schedule_changes_a_bit(shim, name):
    run, *arguments = CASES[name]
    first = None
    for seed in SEEDS:
        shim.set_seed(seed)
        written = [x.detach() for x in run(*arguments)]
        first = first or written
        for got, want in zip(written, first, strict=True):
            assert torch.equal(got, want), f"seed {seed}"
        assert not any(x.is_floating_point() and x.isnan().any() for x in written)


def test_every_op_is_redirected():
    schemas = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if "elastic::" in name}
    assert set(op_names()) == {name.split(".")[0] for name in schemas}


@pytest.mark.parametrize("bad", [[0, 2, 5], [1, 2, 6], [0, 7, 6], [0, 4, 9], [0, -3, 6]])
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_offsets_that_do_not_fit_make_the_loss_nan(bad, loss):
    zeros = torch.zeros(6)
    logits = torch.randn(6, 33, generator=torch.Generator().manual_seed(0), requires_grad=True)
    output = ops.grpo_loss(logits, zeros.long(), zeros, torch.tensor(bad), torch.ones(2), loss=loss)
    assert output.loss.isnan()


def test_an_id_out_of_range_makes_its_logprob_and_the_loss_nan():
    zeros, nan = torch.zeros(6), [False, False, True, False, True, False]
    logits = torch.randn(6, 33, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 1, 33, 3, -1, 5])
    output = ops.grpo_loss(logits, targets, zeros, torch.tensor([0, 6]), torch.ones(1))
    assert output.loss.isnan()
    assert output.logprobs.isnan().tolist() == nan
    assert ops.token_logprobs(logits, targets)[0].isnan().tolist() == nan


def test_rows_of_an_illegal_budget_are_done():
    machine = compile_budgets([Budget(2, 2)], Markers((2,), (3,)), None, [0], 99)[0]
    assert ops.is_done(ops.new_state([0, 10**6, -1], machine)).tolist() == [False, True, True]


def test_a_launch_that_cannot_be_names_op_kernel_and_shape(shim):
    assert shim.set_logits_launch(1, 64)  # a row in one block's shared memory, which has no room for this one
    try:
        message = r"token_logprobs: kernel logits_kernel<.*>: launch failed for \[1, 60000\] float32 on cpu"
        with pytest.raises(RuntimeError, match=message):
            ops.token_logprobs(torch.zeros(1, 60_000), torch.zeros(1, dtype=torch.int64))
    finally:
        shim.set_logits_launch(-1, 0)
