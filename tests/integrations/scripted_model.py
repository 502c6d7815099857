"""A GPT-2 whose weights are a script, so that every engine that runs GPT-2 can be told what to write.

Its hidden state is its position, one-hot; `lm_head` says which token follows each. Tokens themselves matter a
little, through a dimension of their own and through attention, as `RolloutEngine` asks of a model before it
decodes. All scenarios share one model: each has a stretch of positions of its own, which its prompt reaches
through as many filler tokens. `save` writes model and tokenizer to a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from elastic.budget.markers import Markers
from tests.integrations.rules import SCENARIOS, Scenario
from tests.rollout.scripted import THINK, TOOLS, byte_tokenizer

FILLER, SECOND = "q", "~"  # in front of prompts; what is written where the token wanted is masked
HEAD_WIDTH = 64
ROOM = 64  # positions behind the last script, for engines that check whether the bound of a budget fits
_TOKEN_DIM, _SECOND_DIM = -2, -1  # of the hidden state; those in front are positions
TOKENIZER = byte_tokenizer(special=(*THINK, *TOOLS))


def load() -> tuple[Any, Any]:
    """Model and tokenizer, float32 on the CPU. Greedy decoding writes the scripts."""
    wanted: dict[int, int] = {}  # position -> the token that follows it
    for scenario in SCENARIOS:
        last = len(prompt_ids(scenario)) - 1
        wanted |= {last + column: token for column, token in enumerate(TOKENIZER.encode(scenario.script))}
    positions = max(wanted) + ROOM
    width = -(-(positions + 2) // HEAD_WIDTH) * HEAD_WIDTH
    config = GPT2Config(
        vocab_size=len(TOKENIZER),
        n_positions=positions,
        n_embd=width,
        n_layer=1,
        n_head=width // HEAD_WIDTH,
        n_inner=8,
        bos_token_id=None,
        eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        _write_script(model, [wanted.get(position, config.eos_token_id) for position in range(positions)])
        _let_tokens_matter(model)
    return model, TOKENIZER


def _write_script(model: Any, script: Sequence[int]) -> None:
    """Logits of 10 or more for the token of each position, 5 for the second choice, 0 for the others."""
    model.transformer.wpe.weight.fill_diagonal_(1.0)
    for position, token in enumerate(script):
        model.lm_head.weight[token, position] = 1.0
    model.transformer.ln_f.bias[_SECOND_DIM] = 1.0
    model.lm_head.weight[TOKENIZER.encode(SECOND)[0], _SECOND_DIM] = 5.0


def _let_tokens_matter(model: Any) -> None:
    """Each token, and the mean of those in front of it, move all logits by up to 1.5."""
    vocabulary, width = model.transformer.wte.weight.shape
    model.transformer.wte.weight[:, _TOKEN_DIM] = torch.linspace(-1, 1, vocabulary) / width**0.5
    attention = model.transformer.h[0].attn
    attention.c_attn.weight[_TOKEN_DIM, _TOKEN_DIM] = 1.0  # the last third makes values
    attention.c_proj.weight[_TOKEN_DIM, _TOKEN_DIM] = 2 / width**0.5
    model.lm_head.weight[:, _TOKEN_DIM] = torch.linspace(0.5, -0.5, vocabulary)


def save(folder: Path) -> None:
    """Writes the model and its tokenizer as `from_pretrained` reads them."""
    for part in load():
        part.save_pretrained(folder)


def prompt_ids(scenario: Scenario) -> list[int]:
    """Its prompt, behind filler tokens up to its stretch of positions."""
    before = takewhile(lambda other: other.name != scenario.name, SCENARIOS)
    filler = sum(len(TOKENIZER.encode(other.prompt + other.script)) for other in before)
    return TOKENIZER.encode(FILLER) * filler + TOKENIZER.encode(scenario.prompt)


def expected_ids(scenario: Scenario) -> list[int]:
    """The tokens of the completion, EOS included where the row writes one."""
    return TOKENIZER.encode(scenario.text)


def markers_of(scenario: Scenario) -> Markers:
    """The markers that the scenario is played with."""
    return Markers.from_tokenizer(TOKENIZER, *scenario.markers)
