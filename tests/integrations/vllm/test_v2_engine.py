"""The real V2 runner: its Triton kernels run in Triton's interpreter, its drafter is scripted.

One process of its own runs all jobs, since vLLM decides at its import how kernels run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from elastic import RolloutEngine, Sampling
from elastic.budget import FinishReason
from elastic.integrations.vllm.values import read_values
from tests.integrations.vllm.bigrams import EOS, bigram_model, save
from tests.rollout.small_models import make_tokenizer

START, NEWLINE = 2, 4
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
NONE = {"prompt": [9, 8, 7], "params": {"temperature": 1.0, "seed": 5, "max_tokens": 30, "ignore_eos": True}}
# Few blocks, so that requests are preempted, and prompts that take two steps to read.
ENGINE = {"block_size": 32, "num_gpu_blocks_override": 6, "max_num_batched_tokens": 24}


def _requests() -> list[dict[str, Any]]:
    """A request for each budget, drawn or greedy in turn, behind a prompt of its own."""
    requests = []
    for number, values in enumerate(BUDGETS):
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
def results(vllm, expected, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("v2")
    save(folder / "model")
    requests = _requests()
    right = {str(request["prompt"]): tokens for request, tokens in zip(requests, expected, strict=True)}
    speculative = {"method": "ngram_gpu", "num_speculative_tokens": 3}
    speculative |= {"prompt_lookup_max": 3, "prompt_lookup_min": 1}

    def job(kind: str, with_probabilities: bool = False, **options: Any) -> dict[str, Any]:
        drafter = {"right": right, "kind": kind, "with_probabilities": with_probabilities}
        engine = {**ENGINE, "speculative_config": {**speculative, **options}}
        return {"engine": engine, "drafter": drafter, "requests": requests}

    jobs = {
        "plain": {"engine": ENGINE, "requests": [*requests, NONE]},
        "right drafts": job("right"),
        "mixed drafts": job("mixed"),
        "probable drafts, verified in blocks": job("mixed", True, rejection_sample_method="block"),
        "without the processor": {"engine": {"logits_processors": []}, "requests": [NONE]},
    }
    files = folder / "jobs.json", folder / "results.json"
    files[0].write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "tests.integrations.vllm.v2_engine", folder / "model", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(files[1].read_text())


JOBS = ["plain", "right drafts", "mixed drafts", "probable drafts, verified in blocks"]


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
