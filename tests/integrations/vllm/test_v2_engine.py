"""The real V2 runner: its Triton kernels run in Triton's interpreter, its drafter is scripted.

One process of its own runs all jobs, since vLLM decides at its import how kernels run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from elastic import RolloutEngine, Sampling
from elastic.budget import FinishReason
from elastic.integrations.request_values import RequestBudget, read_values, values_of
from tests.integrations import scripted_model
from tests.integrations.rules import REFUSED, TAGS
from tests.integrations.vllm.bigrams import END, EOS, bigram_model, save
from tests.integrations.vllm.test_rules import PLAYED, request_of, settings_of
from tests.rollout.small_models import TOKENS, make_tokenizer

START, NEWLINE = 2, 4
EOS_OF_SCRIPTS = scripted_model.TOKENIZER.eos_token_id
BUDGETS: list[Mapping[str, Any]] = [
    {"thinking_budget": 9, "solution_budget": 6},
    {"thinking_budget": 30, "solution_budget": 8, "closing": "\nab</think>\ncd"},
    {
        "thinking_budget": 25,
        "solution_budget": 8,
        "min_thinking": 20,
        "max_extensions": 9,
        "extension": "abc",
    },
    {"thinking_budget": 20, "solution_budget": 8, "notices": [3, "xy", 8, "\nq"]},
    {"thinking_budget": 6, "solution_budget": 9, "grace": 8, "boundary": ["a", "e", "i"]},
    {"thinking_budget": 0, "solution_budget": 5},
    {"thinking_budget": 12, "solution_budget": 20, "end_markers": ["q"], "on_reopen": "forbid"},
    {"total_budget": 17, "on_eos": "stop"},
    {"thinking_budget": 14, "solution_budget": 9, "thinking_used": 6, "start_in": "thinking"},
    {"thinking_budget": 9, "solution_budget": 6, "start_in": "opening"},
]
THOUGHTS: list[Mapping[str, Any]] = [  # of requests whose answers have a grammar
    {"thinking_budget": 9},
    {"thinking_budget": 9, "closing": "ab</think>"},
    {"thinking_budget": 25, "min_thinking": 20, "max_extensions": 9, "extension": "abc"},
]
GRAMMAR = {"regex": "[a-c]{2}[0-9]x"}
NONE = {"prompt": [9, 8, 7], "params": {"temperature": 1.0, "seed": 5, "max_tokens": 30, "ignore_eos": True}}
# Few blocks, so that requests are preempted, and prompts that take two steps to read.
ENGINE = {"block_size": 32, "num_gpu_blocks_override": 6, "max_num_batched_tokens": 24, "max_model_len": 128}


def _requests(budgets: Sequence[Mapping[str, Any]] = BUDGETS) -> list[dict[str, Any]]:
    """A request for each budget, drawn or greedy in turn, behind a prompt of its own."""
    requests = []
    for number, values in enumerate(budgets):
        params = {"temperature": float(number % 2), "seed": number, "max_tokens": 64}
        prompt = [*[6 + number] * 27, START, NEWLINE]
        requests.append({"prompt": prompt, "params": {**params, "extra_args": dict(values)}})
    return requests


def _expected(engine: RolloutEngine, request: dict[str, Any]) -> list[int]:
    """The row of the own engine, and the EOS with which vLLM ends a budget."""
    params = request["params"]
    asked = read_values(params["extra_args"], {})
    assert asked is not None
    row = engine.generate(
        [request["prompt"]],
        asked.budget,
        sampling=Sampling(temperature=params["temperature"]),
        seeds=[params["seed"]],
        max_new_tokens=params["max_tokens"],
        phase=None if asked.phase is None else [asked.phase],
    )
    tokens = row.tokens[0, : row.lengths[0]].tolist()
    return tokens if tokens[-1] == EOS and row.finish_reason[0] == FinishReason.STOP else [*tokens, EOS]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    engine = RolloutEngine(bigram_model(), make_tokenizer())
    return [_expected(engine, request) for request in _requests()]


@pytest.fixture(scope="module")
def thoughts() -> list[list[int]]:
    """Up to the end marker, and what would stand behind it without a grammar."""
    engine = RolloutEngine(bigram_model(), make_tokenizer())
    return [_expected(engine, request) for request in _requests(THOUGHTS)]


def _drafts(
    right: Mapping[str, list[int]], chance: float, others: Sequence[int], **more: Any
) -> dict[str, Any]:
    return {"right": right, "chance": chance, "others": others, "with_logits": False, **more}


def _speculative(**options: Any) -> dict[str, Any]:
    """A configuration of three draft tokens, whose drafter the job replaces."""
    lookup = {"prompt_lookup_max": 3, "prompt_lookup_min": 1}
    return {"speculative_config": {"method": "ngram_gpu", "num_speculative_tokens": 3, **lookup, **options}}


def _of_budgets(folder: Path, expected: Sequence[list[int]]) -> dict[str, Any]:
    """Jobs of every budget behind bigrams."""
    requests = _requests()
    right = {str(request["prompt"]): tokens for request, tokens in zip(requests, expected, strict=True)}
    others, blocks = [EOS, START, 3, 9, 14], _speculative(rejection_sample_method="block")

    def job(requests: Sequence[Any], drafter: Any = None, **engine: Any) -> dict[str, Any]:
        options = {**ENGINE, **engine}
        return {"model": str(folder), "engine": options, "drafter": drafter, "requests": requests}

    return {
        "plain": job([*requests, NONE]),
        "right drafts": job(requests, _drafts(right, 1.0, []), **_speculative()),
        "mixed drafts": job(requests, _drafts(right, 0.6, others), **_speculative()),
        "drafts with logits, verified in blocks": job(
            requests, _drafts(right, 0.6, others, with_logits=True), **blocks
        ),
        "without the processor": job([NONE], logits_processors=[]),
    }


def _of_grammars(folder: Path, thoughts: Sequence[list[int]]) -> dict[str, Any]:
    """Jobs of requests whose answers have a grammar, and half of whose draft tokens are wrong."""
    requests = _requests(THOUGHTS)
    for request in requests:
        request["params"]["structured_outputs"] = GRAMMAR
    right = {str(request["prompt"]): tokens for request, tokens in zip(requests, thoughts, strict=True)}
    engine = {**ENGINE, "structured_outputs_config": {"reasoning_parser": "deepseek_r1"}}
    drafter = _drafts(right, 0.5, [EOS, END, *range(6, 16)])
    job = {"model": str(folder), "requests": requests}
    return {
        "a grammar": {**job, "engine": engine},
        "a grammar and drafts": {**job, "engine": {**engine, **_speculative()}, "drafter": drafter},
    }


def _of_rules(folder: Path) -> dict[str, Any]:
    """A job for the scenarios of each set of markers, half of whose draft tokens are wrong."""
    jobs, others = {}, scripted_model.TOKENIZER.encode("<think></think><eos>a~")
    for markers in {scenario.markers: None for scenario in PLAYED}:
        scenarios = [scenario for scenario in PLAYED if scenario.markers == markers]
        prompts = [scripted_model.prompt_ids(scenario) for scenario in scenarios]
        right = {str(p): scripted_model.expected_ids(s) for p, s in zip(prompts, scenarios, strict=True)}
        params = {"temperature": 0.0, "max_tokens": None}
        jobs[str(markers)] = {
            "model": str(folder),
            "engine": {**_speculative(), "additional_config": {"elastic": settings_of(markers)}},
            "drafter": _drafts(right, 0.5, others),
            "refused": [
                {
                    "prompt": prompts[0],
                    "params": {**params, "extra_args": values_of(RequestBudget(of.budget))},
                }
                for of in REFUSED
                if markers == TAGS
            ],
            "requests": [
                {"prompt": prompt, "params": {**params, "extra_args": values_of(request_of(scenario))}}
                for prompt, scenario in zip(prompts, scenarios, strict=True)
            ],
        }
    return jobs


@pytest.fixture(scope="module")
def results(vllm, expected, thoughts, scripted_folder, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("v2")
    save(folder / "bigrams")
    jobs, found = folder / "jobs.json", folder / "results.json"
    bigrams = folder / "bigrams"
    of_bigrams = {**_of_budgets(bigrams, expected), **_of_grammars(bigrams, thoughts)}
    jobs.write_text(json.dumps({**of_bigrams, **_of_rules(scripted_folder)}))
    command = [sys.executable, "-m", "tests.integrations.vllm.v2_engine", jobs, found]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(found.read_text())


JOBS = ["plain", "right drafts", "mixed drafts", "drafts with logits, verified in blocks"]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("number", range(len(BUDGETS)))
def test_tokens_are_those_of_the_own_engine(results, expected, job, number):
    assert results[job]["tokens"][number] == expected[number]


@pytest.mark.parametrize("job", JOBS)
def test_requests_were_preempted_and_came_back(results, job):
    assert results[job]["resumed"] > 0


def test_right_drafts_save_steps(results):
    assert results["right drafts"]["steps"] < 0.7 * results["plain"]["steps"]


def test_a_request_without_a_budget_gets_the_tokens_that_it_gets_alone(results):
    assert results["plain"]["tokens"][-1] == results["without the processor"]["tokens"][0]


def test_a_grammar_holds_behind_thoughts_with_a_budget_and_drafts_change_nothing(results, thoughts):
    rows = results["a grammar"]["tokens"]
    assert results["a grammar and drafts"]["tokens"] == rows
    for row, thought in zip(rows, thoughts, strict=True):
        behind = thought.index(END) + 1
        assert row[:behind] == thought[:behind]
        assert re.fullmatch(GRAMMAR["regex"], "".join(TOKENS[token] for token in row[behind:-1]))
        assert row[-1] == EOS


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.name)
def test_a_request_writes_what_the_rule_says_whatever_is_drafted(results, scenario):
    same = [other.name for other in PLAYED if other.markers == scenario.markers]
    written = results[str(scenario.markers)]["tokens"][same.index(scenario.name)]
    by_budget = scenario.finish != "STOP"
    assert written == scripted_model.expected_ids(scenario) + [EOS_OF_SCRIPTS] * by_budget


def test_a_budget_that_cannot_be_kept_is_refused(results):
    errors = results[str(TAGS)]["errors"]
    assert len(errors) == len(REFUSED)
    for refused, error in zip(REFUSED, errors, strict=True):
        assert re.search(refused.message, error), refused.name
