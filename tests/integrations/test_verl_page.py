"""The function of docs/verl.md, on completions as vLLM returns them."""

import pytest

from elastic import Budget, Markers
from tests.integrations import pages
from tests.rollout.scripted import byte_tokenizer

TOKENIZER = byte_tokenizer()


@pytest.mark.parametrize(
    ("completion", "mask"),
    [
        ("ab</think>xyz<eos>", [1, 1, 0, 1, 1, 1, 0]),  # cut at both budgets, ended by vLLM with an EOS
        ("a</think>x<eos>", [1, 1, 1, 1]),  # nothing cut: all of it is the model's own
    ],
)
def test_forced_tokens_are_masked(completion, mask):
    response_mask = pages.run("verl.md")["response_mask"]
    markers = Markers.from_tokenizer(TOKENIZER)
    prompt, ids = TOKENIZER.encode("q<think>"), TOKENIZER.encode(completion)
    assert response_mask(prompt, ids, Budget(2, 3), markers, [TOKENIZER.eos_token_id]) == mask
