"""What a server's configuration says to budgets, without vLLM."""

from types import SimpleNamespace

import pytest

from elastic.integrations.vllm import settings
from elastic.integrations.vllm.settings import Settings
from tests.integrations.vllm.v2_steps import EOS, TOKENIZER

MODEL = {"enable_prompt_embeds": False, "max_model_len": 64, "seed": 3}


@pytest.fixture
def of(monkeypatch):
    """Settings of a configuration that differs from the usual one in some values."""
    monkeypatch.setattr(settings, "_load_tokenizer", lambda model: TOKENIZER)

    def made(additional=None, drafting=None, structured=None, **model):
        usual = SimpleNamespace(**{**MODEL, **model}, try_get_generation_config=lambda: {"eos_token_id": [9]})
        parsed = {"reasoning_parser": "", "enable_in_reasoning": False}
        return Settings(
            SimpleNamespace(
                model_config=usual,
                additional_config=additional or {},
                scheduler_config=SimpleNamespace(max_num_seqs=4),
                use_v2_model_runner=True,
                speculative_config=drafting,
                structured_outputs_config=SimpleNamespace(**{**parsed, **(structured or {})}),
            )
        )

    return made


def test_ids_that_end_requests_are_the_tokenizers_and_those_of_the_generation_config(of):
    assert of().eos_ids == (EOS, 9)


def test_prompts_that_no_one_can_read_are_refused(of):
    with pytest.raises(ValueError, match=r"^enable_prompt_embeds: expected False"):
        of(enable_prompt_embeds=True)


def test_draft_tokens_accepted_by_chance_are_refused(of):
    drafting = SimpleNamespace(rejection_sample_method="standard", num_speculative_tokens=3)
    assert of(drafting=drafting).drafts == 3
    drafting.rejection_sample_method = "synthetic"
    with pytest.raises(ValueError, match=r"^rejection_sample_method: .* 'synthetic'"):
        of(drafting=drafting)


@pytest.mark.parametrize(
    ("structured", "behind"),
    [
        ({}, False),
        ({"reasoning_parser": "qwen3"}, True),
        ({"reasoning_parser": "qwen3", "enable_in_reasoning": True}, False),
    ],
)
def test_a_grammar_holds_behind_the_thought_where_reasoning_is_parsed(of, structured, behind):
    assert of(structured=structured).grammar_behind_thought is behind


def test_requests_without_a_seed_get_the_same_ones_in_every_process_of_a_server(of):
    asked = [SimpleNamespace(seed=seed) for seed in (None, 7, None)]
    first, other = ([one.seed(params) for params in asked] for one in (of(), of()))
    assert first == other
    assert first[1] == 7
    assert first[0] != first[2]
    assert of(seed=4).seed(asked[0]) != first[0]


@pytest.mark.parametrize("additional", [{"elastic": 5}, {"elastic": ["thinking_budget"]}])
def test_a_part_of_the_configuration_that_is_no_object_is_refused(of, additional):
    with pytest.raises(ValueError, match="expected an object of names and values, got"):
        of(additional)
