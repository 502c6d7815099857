"""The phase that a prompt leaves, read in tensors, is the one that `Markers` reads from ids."""

import random

import pytest
import torch

from elastic.budget import Markers, Phase
from elastic.budget.budget import Budget
from elastic.budget.machine import compile_budgets
from elastic.integrations.vllm.v2_prompt import PROMPT_TAIL, prompt_phase
from tests.integrations.vllm.v2_steps import END, START, TOKENIZER, ids_of
from tests.rollout.small_models import VOCAB

NEWLINE, SPACE = 4, 5
ONE_TOKEN = Markers.from_tokenizer(TOKENIZER, ends=("ab",))
SEVERAL = Markers(
    *(tuple(ids_of(text)) for text in ("=a=", "=b=")),
    tokenizer=TOKENIZER,
    ends=tuple(tuple(ids_of(text)) for text in ("\nc", "abc")),
)


def _phases(prompts: list[list[int]], markers: Markers) -> list[int]:
    machine = compile_budgets([Budget(1, 1)], markers, TOKENIZER)[0]
    padded = [([START] * PROMPT_TAIL + prompt)[-PROMPT_TAIL:] for prompt in prompts]
    inside = [[i >= PROMPT_TAIL - len(prompt) for i in range(PROMPT_TAIL)] for prompt in prompts]
    return prompt_phase(torch.tensor(padded), torch.tensor(inside), machine.token_flags, markers).tolist()


@pytest.mark.parametrize(
    ("prompt", "phase"),
    [
        ([7, START], Phase.THINKING),
        ([7, START, NEWLINE, SPACE], Phase.THINKING),
        ([7, START, 8], Phase.OPENING),
        ([7, START, NEWLINE, END, NEWLINE, NEWLINE], Phase.SOLUTION),
        ([START], Phase.THINKING),
        ([7], Phase.OPENING),
        ([NEWLINE], Phase.OPENING),
        ([7] * 300 + [START], Phase.THINKING),
        ([START] + [7] * 300, Phase.OPENING),
        ([7, START, VOCAB + 9], Phase.OPENING),
    ],
)
def test_only_white_space_may_stand_behind_the_marker(prompt, phase):
    assert _phases([prompt], ONE_TOKEN) == [phase]


@pytest.mark.parametrize("markers", [ONE_TOKEN, SEVERAL])
def test_random_prompts_start_where_their_markers_say(markers):
    chance = random.Random(0)
    pieces = [
        [START],
        [END],
        *map(ids_of, ("=a=", "=b=", "=", "a", "\nc", "abc", "b", " ", "\n", "\n\n", "q")),
    ]
    prompts = [[i for p in chance.choices(pieces, k=chance.randrange(1, 9)) for i in p] for _ in range(2000)]
    expected = [int(markers.initial_phase(prompt)) for prompt in prompts]
    assert len(set(expected)) == 3
    assert _phases(prompts, markers) == expected
