"""The scenarios of `rules`, played by the own engine and by transformers; a row of a batch each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

from elastic import RolloutBatch, RolloutEngine, Sampling
from elastic.integrations.transformers import BudgetLogitsProcessor, custom_generate
from tests.integrations import scripted_model
from tests.integrations.rules import Scenario

Player = Callable[[Any, Any, Sequence[Scenario]], RolloutBatch]


def starts(scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """Where the rows start."""
    return {
        "phase": [scenario.phase for scenario in scenarios],
        "thinking_used": [scenario.thinking_used or 0 for scenario in scenarios],
    }


def padded(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """What a tokenizer with padding on the left returns."""
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad_id] * (longest - len(p)) + list(p) for p in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
    }


def inputs_of(scenarios: Sequence[Scenario]) -> dict[str, torch.Tensor]:
    prompts = [scripted_model.prompt_ids(scenario) for scenario in scenarios]
    return padded(prompts, scripted_model.TOKENIZER.pad_token_id)


def ending(scenarios: Sequence[Scenario]) -> Callable[..., str | None]:
    """An `on_token` that ends the thinking of each row where its scenario says so."""
    seen = [0] * len(scenarios)

    def on_token(row: int, *_: int) -> str | None:
        seen[row] += 1
        return "end_thinking" if seen[row] == scenarios[row].ended else None

    return on_token


def own(model: Any, tokenizer: Any, scenarios: Sequence[Scenario]) -> RolloutBatch:
    engine = RolloutEngine(model, tokenizer, scripted_model.markers_of(scenarios[0]), max_rows=8)
    prompts = [scripted_model.prompt_ids(scenario) for scenario in scenarios]
    budgets = [scenario.budget for scenario in scenarios]
    return engine.generate(
        prompts, budgets, sampling=Sampling(0), on_token=ending(scenarios), **starts(scenarios)
    )


def processor(model: Any, tokenizer: Any, scenarios: Sequence[Scenario]) -> RolloutBatch:
    inputs = inputs_of(scenarios)
    budgets = BudgetLogitsProcessor(
        *(model, tokenizer, inputs, [scenario.budget for scenario in scenarios]),
        sampling=Sampling(0),
        markers=scripted_model.markers_of(scenarios[0]),
        **starts(scenarios),
    )

    class Ending(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            for row, scenario in enumerate(scenarios):
                if scenario.ended == budgets.emitted:
                    budgets.end_thinking(row)
            return torch.zeros(len(scenarios), dtype=torch.bool)

    arguments = budgets.arguments()
    arguments["stopping_criteria"].append(Ending())
    sequences = model.generate(**inputs, **arguments)
    batch = budgets.batch
    assert_written(sequences, inputs, batch)
    return batch


def custom(model: Any, tokenizer: Any, scenarios: Sequence[Scenario]) -> RolloutBatch:
    engine = RolloutEngine(model, tokenizer, scripted_model.markers_of(scenarios[0]), max_rows=8)
    budgets = [scenario.budget for scenario in scenarios]
    generate = custom_generate(engine, budgets, on_token=ending(scenarios), **starts(scenarios))
    inputs = inputs_of(scenarios)
    sequences = model.generate(**inputs, custom_generate=generate, max_new_tokens=60)
    assert generate.batch is not None
    assert_written(sequences, inputs, generate.batch)
    return generate.batch


def assert_written(sequences: torch.Tensor, inputs: dict[str, torch.Tensor], batch: RolloutBatch) -> None:
    """What generate returned is the prompts and the record's tokens."""
    ids = inputs["input_ids"]
    ids = ids.repeat_interleave(len(sequences) // len(ids), dim=0)
    assert torch.equal(sequences, torch.cat([ids, batch.tokens], dim=1))


PLAYERS: dict[str, Player] = {"own": own, "processor": processor, "custom": custom}
