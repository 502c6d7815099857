"""An engine that says what it is told, so that every number of a row can be worked out by hand."""

from collections.abc import Callable, Sequence

import pytest
import torch

from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.budget.markers import Markers
from elastic.rollout import RolloutBatch
from elastic.rollout.plan.limits import Limits
from elastic.sampling import Sampling

WORDS = ["<pad>", "<think>", "</think>", "hm", "yes", "no", "<eos>"]
MARKERS = Markers((1,), (2,), "<think>", "</think>")
PAD, END, HM, YES, NO, EOS = 0, 2, 3, 4, 5, 6


class Words:
    """Decodes ids to words; encodes every word as `hm`, as what a prompt says does not matter here."""

    pad_token_id, all_special_ids = PAD, [PAD, END, EOS]

    def __len__(self) -> int:
        return len(WORDS)

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: object) -> list[str]:
        return [self.decode(ids) for ids in rows]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [WORDS[token] for token in ids]

    def encode(self, text: str, **_: object) -> list[int]:
        return [HM] * len(text.split())

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return " ".join(WORDS[token] for token in ids)


class ScriptedEngine:
    """Answers `yes` after as many `hm` as the prompt has words, as far as the budget lets it.

    Attributes:
        calls: (prompts, budget, sampling) of every call.
        seeds: of every call.
    """

    tokenizer, markers, max_rows = Words(), MARKERS, 64
    limits = Limits(1000, len(WORDS), (EOS,), PAD)

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], Budget, Sampling]] = []
        self.seeds: list[list[int]] = []

    def generate(
        self,
        prompts: Sequence[str],
        budget: Budget,
        samples_per_prompt: int = 1,
        *,
        sampling: Sampling,
        seeds: Sequence[int],
        **_: object,
    ) -> RolloutBatch:
        self.calls.append((list(prompts), budget, sampling))
        self.seeds.append(list(seeds))
        rows = [self._row(len(prompt.split()), budget) for prompt in prompts]
        return batch([row for row in rows for _ in range(samples_per_prompt)], samples_per_prompt)

    def _row(self, wanted: int, budget: Budget) -> tuple[list[int], list[int], list[int], int, bool]:
        """(tokens, source, phase, finish reason, thinking_cut)."""
        thinking, answer = [HM] * wanted, [YES, EOS]
        if budget.thinking is None and budget.total is not None and budget.total <= wanted:
            cap = budget.total
            return [HM] * cap, [0] * cap, [int(Phase.THINKING)] * cap, FinishReason.TOTAL_BUDGET, False
        is_cut = budget.thinking is not None and budget.thinking < wanted
        if budget.thinking is not None and is_cut:
            thinking, answer = thinking[: budget.thinking], [NO, EOS]
        tokens = [*thinking, END, *answer]
        source = [Source.SAMPLED] * len(tokens)
        source[len(thinking)] = Source.FORCED if is_cut else Source.SAMPLED
        phase = [Phase.THINKING] * (len(thinking) + 1) + [Phase.SOLUTION] * 2
        phase[len(thinking)] = Phase.CLOSING if is_cut else Phase.THINKING
        return tokens, [int(s) for s in source], [int(p) for p in phase], FinishReason.STOP, is_cut


def batch(
    rows: Sequence[tuple[list[int], list[int], list[int], int, bool]], samples: int = 1
) -> RolloutBatch:
    """Rows of (tokens, source, phase, finish reason, thinking_cut), padded into a record."""
    width = max(len(row[0]) for row in rows)
    tokens = torch.full((len(rows), width), PAD)
    source = torch.full((len(rows), width), int(Source.PAD), dtype=torch.uint8)
    phase = torch.full((len(rows), width), int(Phase.DONE), dtype=torch.uint8)
    for index, (row_tokens, row_source, row_phase, _, _) in enumerate(rows):
        tokens[index, : len(row_tokens)] = torch.tensor(row_tokens)
        source[index, : len(row_tokens)] = torch.tensor(row_source, dtype=torch.uint8)
        phase[index, : len(row_tokens)] = torch.tensor(row_phase, dtype=torch.uint8)
    sampled = source == Source.SAMPLED
    return RolloutBatch(
        tokens=tokens,
        source=source,
        phase=phase,
        logprobs=torch.zeros(tokens.shape),
        full_logprobs=torch.zeros(tokens.shape),
        lengths=(source != Source.PAD).sum(1),
        thinking_tokens=(sampled & (phase == Phase.THINKING) & (tokens != END)).sum(1),
        solution_tokens=(sampled & (phase == Phase.SOLUTION)).sum(1),
        thinking_cut=torch.tensor([row[4] for row in rows]),
        finish_reason=torch.tensor([int(row[3]) for row in rows], dtype=torch.uint8),
        initial_phase=torch.full((len(rows),), int(Phase.THINKING), dtype=torch.uint8),
        initial_thinking=torch.zeros(len(rows), dtype=torch.int64),
        ended_at=torch.full((len(rows),), -1),
        seeds=torch.arange(len(rows)),
        prompt_index=torch.arange(len(rows)) // samples,
        prompts=[[1]] * (len(rows) // samples),
        markers=MARKERS,
        tokenizer=Words(),
    )


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def graded() -> Callable[[str, str], float]:
    """1 if the completion says the answer behind the end marker."""
    return lambda response, answer: float(answer in response.partition("</think>")[2])
