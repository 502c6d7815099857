"""V1: samples of one prompt, for which vLLM may hand on one object of sampling parameters."""

from types import SimpleNamespace

import torch

from elastic.budget import Budget
from elastic.integrations.vllm.v1 import V1Budgets
from tests.integrations.vllm.v2_steps import THINKING, Settings, logits_after, params, plain


def test_samples_that_share_their_parameters_have_states_of_their_own():
    sampling, outputs = params(Budget(3, 4), 5), ([], [])
    budgets = V1Budgets(Settings(), "cpu")

    def come(removed=()):
        added = [(i, sampling, THINKING, output) for i, output in enumerate(outputs)]
        budgets.update_state(SimpleNamespace(removed=removed, moved=[], added=added))

    def steps(number):
        for _ in range(number):
            left = budgets.apply(torch.stack([logits_after([*THINKING, *output]) for output in outputs]))
            for output, row in zip(outputs, left, strict=True):
                output.append(int(row.argmax()))

    come()
    steps(4)
    whole = plain(sampling, THINKING, 6)
    assert [*outputs] == [whole[:4], whole[:4]]
    del outputs[1][2:]  # as if it were two steps behind
    come(removed=[0, 1])
    steps(2)
    assert [*outputs] == [whole, whole[:4]]
