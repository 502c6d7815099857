"""Budgets in vLLM's V1 runner, started in ways of its own: chunks, few blocks, defaults, bad configurations.

vLLM keeps one engine in a process at a time, so these have no engine in common.
"""

import pytest

from elastic import Budget
from tests.integrations.vllm.offline import engine, params, preempt_often, tokens
from tests.integrations.vllm.sums import BUDGETS, SAMPLINGS, own_tokens, prompt_ids, requests, servers_seeds


def test_a_prompt_in_chunks_draws_nothing_before_its_end(vllm, tiny, tiny_folder):
    prompts = (prompt_ids(tiny[1], length=90) * 3)[: len(BUDGETS)]
    sampling = SAMPLINGS["seeded"]
    expected = own_tokens(tiny, prompts, BUDGETS, sampling, servers_seeds(len(BUDGETS)))
    with engine(tiny_folder, max_model_len=256, max_num_batched_tokens=20) as llm:
        assert tokens(llm, prompts, requests(sampling, BUDGETS, [None] * len(BUDGETS))) == expected


def test_preempted_requests_go_on_where_they_were(vllm, tiny, tiny_folder):
    """Requests lose their place, inside forced texts too, and are computed again (R10)."""
    closing = "wait ok so we have </think> so the answer is".replace("the ", "")
    budgets = [Budget(10 + i, 8, closing=closing, notices=((5, "have have"),)) for i in range(12)]
    prompts = (prompt_ids(tiny[1], length=20) * 3)[:12]
    sampling = SAMPLINGS["seeded"]
    expected = own_tokens(tiny, prompts, budgets, sampling, servers_seeds(12))
    with engine(tiny_folder, max_model_len=128, block_size=32, num_gpu_blocks_override=10) as llm:
        preempted = preempt_often(llm)
        assert tokens(llm, prompts, requests(sampling, budgets, [None] * 12)) == expected
        assert len(preempted) > 12


def test_a_request_resumed_without_its_state_is_read_back(vllm, tiny, tiny_folder):
    from elastic.integrations.vllm import v1

    closing = "wait ok so we have </think> so answer is"
    budgets = [Budget(10 + i, 8, closing=closing) for i in range(12)]
    prompts = (prompt_ids(tiny[1], length=20) * 3)[:12]
    seeds, sampling = range(12), SAMPLINGS["greedy"]
    expected = own_tokens(tiny, prompts, budgets, sampling, seeds)
    with engine(tiny_folder, max_model_len=128, block_size=32, num_gpu_blocks_override=10) as llm:
        preempted = preempt_often(llm)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(v1.V1Budgets, "_leave", forgetful(v1.V1Budgets._leave))
            assert tokens(llm, prompts, requests(sampling, budgets, seeds)) == expected
        assert len(preempted) > 12


def forgetful(leave):
    def leave_and_forget(self, row):
        leave(self, row)
        if row is not None:
            row.kept = None

    return leave_and_forget


@pytest.mark.parametrize(
    ("elastic", "options", "said"),
    [
        ({"thinkingbudget": 3}, {}, "unknown 'thinkingbudget'; known are thinking_budget"),
        ({"solution_budget": 0}, {}, "solution_budget: expected an integer from 1"),
        ({"start_marker": "<x>"}, {}, "start_marker: .*<x>"),
        ({}, {"skip_tokenizer_init": True}, "skip_tokenizer_init: expected False"),
    ],
)
def test_a_configuration_that_budgets_cannot_work_with_is_refused_at_the_start(
    vllm, tiny_folder, elastic, options, said
):
    with pytest.raises(ValueError, match=said), engine(tiny_folder, elastic, max_model_len=128, **options):
        pass


def test_a_servers_defaults_hold_for_requests_that_say_nothing(vllm, tiny, tiny_folder):
    prompts = prompt_ids(tiny[1])
    budgets = [Budget(9, 5), Budget(9, 5), Budget(14, 5), Budget(9, None)]
    expected = own_tokens(tiny, prompts, budgets, SAMPLINGS["greedy"], range(4))
    with engine(tiny_folder, {"thinking_budget": 9, "solution_budget": 5}, max_model_len=128) as llm:
        extra = [None, {}, {"thinking_budget": 14}, {"solution_budget": -1}]
        asked = [params(None, extra_args=values) for values in extra]
        assert tokens(llm, prompts, asked) == expected
