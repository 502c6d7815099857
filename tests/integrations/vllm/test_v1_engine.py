"""Budgets in vLLM's V1 runner: the tokens of the own engine, whatever the scheduler does with the rows."""

from types import SimpleNamespace

import pytest
import torch

from elastic import Budget, Phase, RolloutEngine, Sampling
from elastic.integrations.request_values import RequestBudget
from tests.integrations.vllm.offline import PROCESSOR, engine, params, tokens
from tests.integrations.vllm.sums import BUDGETS, SAMPLINGS, own_tokens, prompt_ids, requests


@pytest.fixture(scope="module")
def llm(vllm, tiny_folder):
    with engine(tiny_folder, max_model_len=256) as llm:
        yield llm


@pytest.mark.parametrize("name", SAMPLINGS)
def test_tokens_are_those_of_the_own_engine(llm, tiny, name):
    prompts = (prompt_ids(tiny[1]) * 3)[: len(BUDGETS)]
    seeds = range(100, 100 + len(BUDGETS))
    expected = own_tokens(tiny, prompts, BUDGETS, SAMPLINGS[name], seeds)
    assert tokens(llm, prompts, requests(SAMPLINGS[name], BUDGETS, seeds)) == expected


def test_64_requests_with_and_without_budgets_beside_each_other(llm, tiny):
    prompts = prompt_ids(tiny[1]) * 16
    seeds, sampling = range(64), SAMPLINGS["seeded"]
    budgets = [BUDGETS[i % len(BUDGETS)] for i in range(64)]
    asked = requests(sampling, budgets, seeds)
    expected = own_tokens(tiny, prompts, budgets, sampling, seeds)
    free = range(0, 64, 3)
    for i in free:  # greedy and without a budget: what the vanilla cut at as many tokens gives
        asked[i] = params(None, max_tokens=25)
    greedy = own_tokens(
        tiny,
        [prompts[i] for i in free],
        [Budget.vanilla(25)] * len(free),
        SAMPLINGS["greedy"],
        seeds[: len(free)],
    )
    for i, row in zip(free, greedy, strict=True):
        expected[i] = row[:25]
    found = tokens(llm, prompts, asked)
    assert found == expected
    assert len({len(row) for row in found}) > 10  # rows end at different steps, others take their places


def test_samples_of_a_request_have_seeds_that_follow_its_own(llm, tiny):
    prompt, sampling = prompt_ids(tiny[1])[1], SAMPLINGS["seeded"]
    (asked,) = requests(sampling, [Budget(20, 8)], [7])
    asked.n = 4
    (out,) = llm.generate([{"prompt_token_ids": prompt}], asked, use_tqdm=False)
    expected = own_tokens(tiny, [prompt] * 4, [Budget(20, 8)] * 4, sampling, range(7, 11))
    assert [list(sample.token_ids) for sample in out.outputs] == expected


def test_requests_without_a_seed_differ(llm, tiny):
    asked = requests(Sampling(temperature=2.0), [Budget(30, 8)] * 8, [None] * 8)
    found = tokens(llm, prompt_ids(tiny[1])[:1] * 8, asked)
    assert len({tuple(row) for row in found}) > 4


def test_the_phase_may_be_stated_where_the_prompt_does_not_say_it(llm, tiny):
    prompt = tiny[1].encode("a 3 b + 4 c - 9 = ? <think> we have 3 .")
    batch = RolloutEngine(*tiny).generate(
        [prompt], Budget(12, 6), 1, SAMPLINGS["greedy"], phase="thinking", thinking_used=4
    )
    asked = params(RequestBudget(Budget(12, 6), (), Phase.THINKING, 4))
    assert tokens(llm, [prompt], [asked])[0][: int(batch.lengths[0])] == batch.tokens[0].tolist()


def test_a_budget_that_is_used_up_before_the_first_token_forces_the_closing_text(llm, tiny):
    prompt, end = prompt_ids(tiny[1])[0], tiny[1].convert_tokens_to_ids("</think>")
    for used in (12, 100):  # and no more than 4 answer tokens and an EOS, however long the prompt
        (row,) = tokens(llm, [prompt], [params(RequestBudget(Budget(12, 4), (), Phase.THINKING, used))])
        assert row[0] == end
        assert len(row) <= 1 + 4 + 1


@pytest.mark.filterwarnings("ignore:.*start marker")
def test_a_start_marker_that_a_user_typed_changes_nothing(llm, tiny):
    """The row starts in OPENING, and what it writes is its answer (R9)."""
    prompt, opened = tiny[1].encode("a 3 <think> b + 4 c - 9 = ?"), Budget(4, 3)
    expected = own_tokens(tiny, [prompt], [opened], SAMPLINGS["greedy"], [0])
    (row,) = tokens(llm, [prompt], [params(opened)])
    assert [row] == expected
    assert tiny[1].convert_tokens_to_ids("</think>") not in row[:4]  # as it would be if it were thinking


def test_nothing_is_left_behind_when_requests_have_gone(llm, tiny):
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    (own,) = [p._own for p in runner.input_batch.logitsprocs.all if hasattr(p, "_own")]
    tokens(llm, prompt_ids(tiny[1]), requests(SAMPLINGS["seeded"], BUDGETS[:4], range(4)))
    tokens(llm, prompt_ids(tiny[1])[:1], [params(None, max_tokens=3)])  # vLLM says so at its next step
    assert own._rows == {}
    assert sorted(own._free) == list(range(16))
    assert all(not table.users for table in own._tables.open)


def test_v1_with_speculative_decoding_is_refused_at_the_start(vllm):
    from vllm.v1.sample.logits_processor import build_logitsprocs

    config = SimpleNamespace(speculative_config=object())
    with pytest.raises(ValueError, match="not supported when speculative decoding is enabled"):
        build_logitsprocs(config, torch.device("cpu"), False, False, [PROCESSOR])


def test_logprobs_are_those_of_the_models_own_logits(llm, tiny):
    """vLLM takes them before any processor: a forced token shows how little the model thought of it."""
    model, tokenizer = tiny
    prompt = prompt_ids(tokenizer)[0]
    (out,) = llm.generate([{"prompt_token_ids": prompt}], params(Budget(6, 6), logprobs=0), use_tqdm=False)
    ids = list(out.outputs[0].token_ids)
    given = torch.tensor([at[token].logprob for at, token in zip(out.outputs[0].logprobs, ids, strict=True)])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    own = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    torch.testing.assert_close(given, own, atol=1e-4, rtol=0)
