"""V2 + speculative decoding: every request becomes what plain decoding makes of it, whatever is drafted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch

from elastic.budget import Budget
from tests.integrations.vllm.v2_steps import END, EOS, START, THINKING, Runner, ids_of, params, plain
from tests.rollout.small_models import VOCAB

TOKENS = 40
Z = ids_of("z")[0]
BUDGETS = {
    "both": Budget(5, 6),
    "a long closing text": Budget(4, 5, closing="\nabc</think>\n"),
    "no thinking": Budget(0, 4),
    "EOS gives way to the closing text": Budget(30, 8, closing="ab</think>cd"),
    "an early end gives way to an extension": Budget(
        20, 5, min_thinking=15, max_extensions=4, extension="abcd"
    ),
    "notices": Budget(12, 5, notices=((3, "xyz"), (6, "\nq"))),
    "grace": Budget(4, 5, grace=6, boundary=("a", "e", "i", "o")),
    "a total cap": Budget.vanilla(9),
    "forbidden markers": Budget(4, 12, on_reopen="forbid", on_reclose="forbid"),
    "no limit": Budget.unlimited(),
}

Drafter = Callable[[Sequence[int], random.Random], list[int]]
DRAFTERS: dict[str, Drafter] = {
    "right": lambda right, chance: list(right),
    "wrong": lambda right, chance: [(token + 1) % VOCAB for token in right],
    "half right": lambda right, chance: [
        t if chance.random() < 0.5 else chance.randrange(VOCAB) for t in right
    ],
    "right, then wrong": lambda right, chance: [right[0], *((t + 1) % VOCAB for t in right[1:])],
    "markers": lambda right, chance: [chance.choice([START, END, EOS]) for _ in right],
    "placeholders behind the first": lambda right, chance: [right[0], *(-1 for _ in right[1:])],
    "a varying number": lambda right, chance: list(right[: chance.randrange(len(right) + 1)]),
}


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_tokens_are_those_of_plain_decoding(budget, drafter):
    for temperature in (0.0, 1.0):
        for seed in range(2):
            sampling = params(BUDGETS[budget], seed, temperature)
            expected = plain(sampling, THINKING, TOKENS)
            runner, chance = Runner(drafts=3), random.Random(seed)
            runner.add("a", sampling, THINKING)
            while len(runner.outputs["a"]) < TOKENS - 4:
                begun = len(runner.outputs["a"])
                runner.step(["a"], {"a": DRAFTERS[drafter](expected[begun : begun + 3], chance)})
            assert runner.outputs["a"] == expected[: len(runner.outputs["a"])]


def _wants(*script: int) -> Callable[[Sequence[int]], torch.Tensor]:
    """A model that wants the next token of a script behind the prompt, and the letter "z" behind its end."""

    def logits(history: Sequence[int]) -> torch.Tensor:
        at = len(history) - len(THINKING)
        return torch.nn.functional.one_hot(torch.tensor(script[at] if at < len(script) else Z), VOCAB) * 20.0

    return logits


def _run(budget: Budget, script: Sequence[int], *drafts: Sequence[int]) -> list[int]:
    runner = Runner(drafts=3, model=_wants(*script))
    runner.add("a", params(budget, temperature=0.0), THINKING)
    for draft in drafts:
        runner.step(["a"], {"a": draft})
    return runner.outputs["a"]


def test_an_eos_that_gave_way_to_the_closing_text_is_accepted_as_its_first_token():
    budget = Budget(30, 4, closing="ab</think>cd")
    script = [*ids_of("k"), EOS]
    assert _run(budget, script, ids_of("kab"), ids_of("cdz")) == [*ids_of("kab"), END, *ids_of("cdzz")]


def test_a_draft_of_what_the_model_wants_is_rejected_where_the_budget_wants_another_token():
    assert _run(Budget(2, 5), ids_of("klmn"), ids_of("klm")) == [*ids_of("kl"), END]


def test_a_rejected_end_of_thinking_leaves_the_row_thinking():
    assert _run(Budget(4, 5), ids_of("klmnop"), [END, EOS, START], ids_of("lm"), ids_of("n")) == [
        *ids_of("klmn"),
        END,
    ]


def test_a_budget_that_ends_inside_accepted_drafts_counts_each_token_once():
    row = _run(Budget(5, 3), ids_of("klmnopqrst"), ids_of("klm"), [*ids_of("o"), END, START], ids_of("rs"))
    assert row == [*ids_of("klmno"), END, *ids_of("qrs"), EOS]


def test_an_extension_in_place_of_an_early_end_is_not_taken_twice():
    budget = Budget(20, 5, min_thinking=9, max_extensions=1, extension="wx")
    script = [*ids_of("k"), END, END, *ids_of("m"), END]
    assert _run(budget, script, ids_of("kwx"), ids_of("m"), [END]) == [*ids_of("kwx"), *ids_of("m"), END, Z]
