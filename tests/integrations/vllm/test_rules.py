"""The rules of SPEC section 2 in vLLM's V1 runner: every scenario, in one batch."""

from itertools import groupby

import pytest

from elastic.budget import Phase
from elastic.integrations.request_values import RequestBudget
from tests.integrations import scripted_model
from tests.integrations.rules import REFUSED, SCENARIOS, TAGS
from tests.integrations.vllm.offline import engine, params, tokens

# Nobody outside can end the thinking of a request (R22).
PLAYED = [scenario for scenario in SCENARIOS if scenario.ended is None]
EOS = scripted_model.TOKENIZER.eos_token_id


def request_of(scenario):
    phase = None if scenario.phase is None else Phase[scenario.phase.upper()]
    return RequestBudget(scenario.budget, scenario.markers[2], phase, scenario.thinking_used or 0)


def settings_of(markers):
    return {"start_marker": markers[0], "end_marker": markers[1]}


@pytest.fixture(scope="module")
def written(vllm, scripted_folder):
    """The ids of every scenario, by name."""
    found = {}
    for markers, group in groupby(sorted(PLAYED, key=lambda s: s.markers), key=lambda s: s.markers):
        scenarios = list(group)
        with engine(scripted_folder, settings_of(markers), max_num_seqs=64) as llm:
            prompts = [scripted_model.prompt_ids(scenario) for scenario in scenarios]
            asked = [params(request_of(scenario)) for scenario in scenarios]
            for scenario, ids in zip(scenarios, tokens(llm, prompts, asked), strict=True):
                found[scenario.name] = ids
            for scenario, prompt, one in zip(scenarios, prompts, asked, strict=True):
                assert tokens(llm, [prompt], [one]) == [found[scenario.name]], scenario.name  # alone
    return found


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.name)
def test_a_request_writes_what_the_rule_says(scenario, written):
    by_budget = scenario.finish != "STOP"  # vLLM knows no such end: an EOS stands for it
    assert written[scenario.name] == scripted_model.expected_ids(scenario) + [EOS] * by_budget


def test_a_budget_that_cannot_be_kept_is_refused_and_others_go_on(vllm, scripted_folder):
    scenario = SCENARIOS[0]
    prompt = scripted_model.prompt_ids(scenario)
    with engine(scripted_folder, settings_of(TAGS)) as llm:
        for refused in REFUSED:
            with pytest.raises(vllm.exceptions.VLLMValidationError, match=refused.message):
                tokens(llm, [prompt], [params(RequestBudget(refused.budget))])
        assert tokens(llm, [prompt], [params(request_of(scenario))]) == [
            [*scripted_model.expected_ids(scenario), EOS]
        ]
