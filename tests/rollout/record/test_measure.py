"""What a record says about its rows, worked out by hand."""

import pytest
import torch

from elastic.budget import FinishReason, Phase, Source
from elastic.budget.markers import Markers
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure

# phases, o(pening) t(hinking) c(losing) n(otice) s(olution); why the row ended; whether closing was forced
CASES = {
    "ends by itself": ("tttss", FinishReason.STOP, False),
    "cut at t": ("ttcss", FinishReason.STOP, True),
    "cut at t and at s": ("ttcss", FinishReason.SOLUTION_BUDGET, True),
    "cut at s alone": ("tttss", FinishReason.SOLUTION_BUDGET, False),
    "total cap in the thought": ("ttttt", FinishReason.TOTAL_BUDGET, False),
    "total cap in the solution": ("tttss", FinishReason.TOTAL_BUDGET, False),
    "context ends in the thought": ("ttttt", FinishReason.LENGTH, False),
    "context ends in the solution": ("ttsss", FinishReason.LENGTH, False),
    "EOS in the thought, on_eos = stop": ("ttttt", FinishReason.STOP, False),
    "never thinks": ("sssss", FinishReason.STOP, False),
}
EXPECTED = {  # answered, stopped, truncated, thinking_cut, solution_cut
    "ends by itself": (1, 1, 0, 0, 0),
    "cut at t": (1, 1, 0, 1, 0),
    "cut at t and at s": (1, 0, 1, 1, 1),
    "cut at s alone": (1, 0, 1, 0, 1),
    "total cap in the thought": (0, 0, 1, 1, 0),
    "total cap in the solution": (1, 0, 1, 0, 1),
    "context ends in the thought": (0, 0, 1, 1, 0),
    "context ends in the solution": (1, 0, 1, 0, 1),
    "EOS in the thought, on_eos = stop": (0, 1, 0, 0, 0),
    "never thinks": (1, 1, 0, 0, 0),
}


def record(rows: list[tuple[str, FinishReason, bool]]) -> RolloutBatch:
    """One row for each (phases, finish reason, closing forced), padded to the longest."""
    width = max((len(phases) for phases, _, _ in rows), default=0)
    phase = torch.full((len(rows), width), int(Phase.DONE), dtype=torch.uint8)
    for row, (phases, _, _) in enumerate(rows):
        phase[row, : len(phases)] = torch.tensor(["otcns".index(p) for p in phases], dtype=torch.uint8)
    source = torch.full_like(phase, int(Source.SAMPLED)).masked_fill(phase == Phase.DONE, int(Source.PAD))
    zeros = torch.zeros(phase.shape)
    return RolloutBatch(
        tokens=zeros.long(),
        source=source,
        phase=phase,
        logprobs=zeros,
        full_logprobs=zeros,
        lengths=(phase != Phase.DONE).sum(1),
        thinking_tokens=(phase == Phase.THINKING).sum(1),
        solution_tokens=(phase == Phase.SOLUTION).sum(1),
        thinking_cut=torch.tensor([cut for _, _, cut in rows], dtype=torch.bool),
        finish_reason=torch.tensor([int(reason) for _, reason, _ in rows], dtype=torch.uint8),
        initial_phase=torch.full((len(rows),), int(Phase.THINKING), dtype=torch.uint8),
        initial_thinking=torch.zeros(len(rows), dtype=torch.int64),
        ended_at=torch.full((len(rows),), -1),
        seeds=torch.arange(len(rows)),
        prompt_index=torch.arange(len(rows)),
        prompts=[[1]] * len(rows),
        markers=Markers((1,), (2,), "<think>", "</think>"),
    )


def flags(batch: RolloutBatch) -> list[tuple[int, ...]]:
    rows = measure(batch)
    columns = (rows.answered, rows.stopped, rows.truncated, rows.thinking_cut, rows.solution_cut)
    return [tuple(int(value) for value in row) for row in zip(*(c.tolist() for c in columns), strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_cut_where_a_limit_ended_it(name: str) -> None:
    assert flags(record([CASES[name]])) == [EXPECTED[name]]


def test_rows_of_a_batch_are_measured_apart() -> None:
    # a shorter row in front: its padding must not read as a phase
    batch = record([("ts", FinishReason.STOP, False), *CASES.values()])
    assert flags(batch)[1:] == list(EXPECTED.values())
    assert measure(batch).tokens.tolist() == [2] + [5] * len(CASES)
    assert measure(batch).thinking_tokens.tolist()[:3] == [1, 3, 2]
    assert measure(batch).solution_tokens.tolist()[:3] == [1, 2, 2]


def test_no_rows_have_no_measures() -> None:
    assert flags(record([])) == []
