"""Kept sets that do not fit, the registration of the ops that take them, and float64 derivatives."""

import pytest
import torch

from elastic import ops
from tests.cuda_on_cpu.redirect import running
from tests.loss.batches import random_batch
from tests.loss.kept import kept_of, random_sets

LOGITS, TARGETS = torch.zeros(2, 5), torch.tensor([1, 2])
WRONG = {
    "one of them": ({"kept_ids": torch.zeros(2, dtype=torch.int32)}, "kept_ids and kept_offsets together"),
    "wide ids": ({**kept_of([[1], [2]]), "kept_ids": torch.tensor([1, 2])}, "kept_ids: expected .* int32"),
    "few offsets": (kept_of([[1]]), r"kept_offsets: expected \[3\]"),
    "short offsets": (
        {**kept_of([[1], [2]]), "kept_offsets": torch.tensor([0, 1, 1])},
        "kept_offsets: expected to end at the number of kept_ids = 2, got 1",
    ),
    "descending": (kept_of([[1, 0], [2]]), "ascending ids in .* within a token, got others at token 0"),
    "twice": (kept_of([[1, 1], [2]]), "ascending ids in .* within a token, got others at token 0"),
    "negative": (kept_of([[-1, 1], [2]]), "ascending ids in .* within a token, got others at token 0"),
    "beyond": (kept_of([[1], [2, 5]]), r"ids in \[0, 5\) .* others at token 1"),
    "no target": (kept_of([[1], [1, 3]]), "expected the target among a token's ids, got 2 .* at token 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_sets_that_do_not_fit_are_refused(name):
    kept, message = WRONG[name]
    error = TypeError if "int32" in message else ValueError
    with pytest.raises(error, match=f"token_logprobs: .*{message}"):
        ops.token_logprobs(LOGITS, TARGETS, **kept)
    with pytest.raises(error, match=f"grpo_loss: .*{message}"):
        ops.grpo_loss(LOGITS, TARGETS, torch.zeros(2), torch.tensor([0, 2]), torch.ones(1), **kept)


@pytest.mark.parametrize(
    "kept",
    [
        kept_of([[1], [1, 3]]),  # no target
        kept_of([[1], [2, 5]]),
        kept_of([[1], [-1, 2]]),
        {**kept_of([[1], [2]]), "kept_offsets": torch.tensor([0, 1, 9])},
        {**kept_of([[1], [2]]), "kept_offsets": torch.tensor([0, 1, -1])},
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_on_cuda_such_a_token_is_nan_and_nothing_is_written_beside_its_row(request, kept, loss):
    with running("cuda_on_cpu", request):
        logits = torch.zeros(2, 5, requires_grad=True)
        logprobs, _ = ops.token_logprobs(logits, TARGETS, **kept)
        assert logprobs.isnan().tolist() == [False, True]
        rows = torch.tensor([0, 1, 2])
        output = ops.grpo_loss(logits, TARGETS, torch.zeros(2), rows, torch.ones(2), loss=loss, **kept)
        assert output.loss.isnan()
        (gradient,) = torch.autograd.grad(output.loss, logits)
        assert gradient[0].isfinite().all()


@pytest.mark.parametrize("op", ["token_logprobs", "grpo_loss"])
def test_the_ops_are_registered_for_kept_sets(op):
    batch = random_batch(vocab=37)
    kept = tuple(random_sets(batch.targets, 37).values())
    leaf = batch.logits.clone().requires_grad_()
    if op == "token_logprobs":
        arguments = (leaf, batch.targets, 0.7, None, None, *kept)
        torch.library.opcheck(torch.ops.elastic.token_logprobs.default, arguments)
        return
    compiled = torch.compile(ops.grpo_loss, fullgraph=True, backend="aot_eager")
    names = dict(zip(("kept_ids", "kept_offsets"), kept, strict=True))
    losses = [f(*batch.positional(leaf), **batch.keywords(), **names).loss for f in (compiled, ops.grpo_loss)]
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in losses]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck_in_float64(softcap):
    batch = random_batch(torch.float64, lengths=(3, 4), groups=(2,), vocab=11)
    kept = random_sets(batch.targets, 11)

    def run(logits):
        return ops.token_logprobs(logits, batch.targets, 0.7, softcap=softcap, **kept)

    def loss(logits):
        arguments = (batch.targets, batch.old_logprobs, batch.row_offsets, torch.tensor([1.0, -0.5]).double())
        return ops.grpo_loss(logits, *arguments, softcap=softcap, entropy_coef=0.1, loss="sapo", **kept).loss

    leaf = batch.logits.requires_grad_()
    assert torch.autograd.gradcheck(run, (leaf,))
    assert torch.autograd.gradcheck(loss, (leaf,))
