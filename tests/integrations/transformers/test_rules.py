"""The rules of SPEC section 2 in the own engine and in `generate` of transformers, a scenario at a time."""

from dataclasses import replace
from functools import cache

import pytest

from elastic import FinishReason, Phase, RolloutBatch, Source
from tests.integrations import scripted_model
from tests.integrations.rules import REFUSED, SCENARIOS, Scenario
from tests.integrations.transformers.players import PLAYERS
from tests.rollout.calls import assert_replayed

pytestmark = pytest.mark.filterwarnings("ignore:start and end:elastic.budget.markers.MarkerWarning")


@cache
def played(engine: str, markers: tuple, backwards: bool = False) -> tuple[list[Scenario], RolloutBatch]:
    """All scenarios with these markers, as rows of one batch."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.markers == markers]
    scenarios = scenarios[::-1] if backwards else scenarios
    return scenarios, PLAYERS[engine](*scripted_model.load(), scenarios)


def row_of(scenario: Scenario, engine: str, backwards: bool = False) -> tuple[RolloutBatch, int, list[int]]:
    scenarios, batch = played(engine, scenario.markers, backwards)
    row = scenarios.index(scenario)
    return batch, row, batch.tokens[row, : int(batch.lengths[row])].tolist()


@pytest.mark.parametrize("engine", PLAYERS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_row_is_what_the_rule_says(scenario, engine):
    batch, row, ids = row_of(scenario, engine)
    assert scripted_model.TOKENIZER.decode(ids) == scenario.text
    assert ids == scripted_model.expected_ids(scenario)
    assert (
        "".join(Source(source).name[0] for source in batch.source[row, : len(ids)].tolist())
        == scenario.source
    )
    counts = int(batch.thinking_tokens[row]), int(batch.solution_tokens[row])
    assert counts == (scenario.thinking, scenario.solution)
    assert FinishReason(int(batch.finish_reason[row])).name == scenario.finish


@pytest.mark.parametrize("engine", PLAYERS)
def test_r5_no_row_is_longer_than_its_bound(engine):
    longest = 0
    for scenario in SCENARIOS:
        batch, row, ids = row_of(scenario, engine)
        bound = scenario.budget.max_tokens(
            scripted_model.markers_of(scenario), phase=Phase(int(batch.initial_phase[row]))
        )
        assert bound is None or len(ids) <= bound
        longest += len(ids) == bound
    assert longest > 5


@pytest.mark.parametrize("engine", PLAYERS)
def test_r10_the_record_is_what_replay_reads_from_the_tokens(engine):
    for markers in {scenario.markers for scenario in SCENARIOS}:
        scenarios, batch = played(engine, markers)
        assert_replayed(batch, [scenario.budget for scenario in scenarios])


@pytest.mark.parametrize("engine", PLAYERS)
def test_r15_budgets_of_a_batch_differ_and_its_order_changes_nothing(engine):
    for scenario in SCENARIOS:
        assert row_of(scenario, engine)[2] == row_of(scenario, engine, backwards=True)[2], scenario.name


@pytest.mark.parametrize("engine", PLAYERS)
@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_a_budget_that_cannot_be_kept_is_refused(refused, engine):
    scenario = replace(SCENARIOS[0], budget=refused.budget)
    with pytest.raises(ValueError, match=refused.message):
        PLAYERS[engine](*scripted_model.load(), [scenario])
