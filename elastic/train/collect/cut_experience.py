"""Thoughts with the solutions behind their cuts, as rows for the update.

A thought becomes one row per segment between two cuts, as each has an advantage of its own. What stands in
front of a segment or a solution is its prompt: the question with the thought so far. A segment and the
solutions behind the cut at which it begins share theirs, so in a packed batch it is there once.

R thoughts, S cuts, M solutions behind each cut.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure
from elastic.train.collect.experience import Experience


class Answered(NamedTuple):
    """Thoughts with the solutions behind their cuts, on the CPU.

    Attributes:
        thoughts: R rows up to the last cut; what they have behind it is not used.
        kept: [S, R] int64, tokens of each row in front of its closing or its solution.
        solved: S * R * M complete rows, cut by cut.
        repeated: [S, R, M] bool, whether a row is the one of the cut before: the thought had ended there.
    """

    thoughts: RolloutBatch
    kept: Tensor
    solved: RolloutBatch
    repeated: Tensor

    @property
    def sampled_tokens(self) -> int:
        """Tokens that were generated, each once."""
        behind = self.solved.lengths.view(self.repeated.shape) - self.kept[..., None]
        return int(self.thoughts.lengths.sum() + behind[~self.repeated].sum())


class _Piece(NamedTuple):
    """Tokens first .. end - 1 of a row, behind those in front of them; no loss where `masked`."""

    batch: RolloutBatch
    row: int
    first: int
    end: int
    advantage: float
    skipped: bool
    masked: bool = False


def cut_experience(
    answered: Answered,
    thoughts: Tensor,
    solutions: Tensor,
    ungraded: Tensor,
    mask_cut_solutions: bool = False,
) -> Experience:
    """Rows of segments and solutions; each carries loss on its own sampled tokens alone.

    A solution that stands behind several cuts, because its thought had ended at the first of them, is one row
    with the mean of its advantages.

    Args:
        answered: thoughts of one problem follow each other.
        thoughts: [S, R] advantage of the segment that ends at each cut.
        solutions: [S, R, M] advantages.
        ungraded: [S, R, M] bool, solutions without a reward: they are skipped, and so is a thought that has
            none at some cut.
        mask_cut_solutions: leave solutions that a limit ended out of the loss.
    """
    kept, repeated = answered.kept.tolist(), answered.repeated.tolist()
    lengths, cuts = answered.solved.lengths.tolist(), range(len(kept))
    truncated = measure(answered.solved).truncated.view(answered.repeated.shape) & mask_cut_solutions
    samples = range(answered.repeated.shape[2])

    def segment(row: int, cut: int) -> _Piece:
        first, lost = kept[cut - 1][row] if cut else 0, bool(ungraded[:, row].all(-1).any())
        return _Piece(answered.thoughts, row, first, kept[cut][row], float(thoughts[cut, row]), lost)

    def solution(row: int, cut: int, sample: int) -> _Piece:
        end = next((other for other in cuts[cut + 1 :] if not repeated[other][row][sample]), len(cuts))
        place = (cut * len(kept[0]) + row) * len(samples) + sample
        return _Piece(
            *(answered.solved, place, kept[cut][row], lengths[place]),
            float(solutions[cut:end, row, sample].mean()),
            bool(ungraded[cut, row, sample]),
            bool(truncated[cut, row, sample]),
        )

    pieces: list[_Piece] = []
    problems = answered.thoughts.prompt_index.tolist()
    for problem in dict.fromkeys(problems):
        rows = [row for row, own in enumerate(problems) if own == problem]
        pieces += [segment(row, 0) for row in rows]
        for row in rows:
            for cut in cuts:
                pieces += [solution(row, cut, j) for j in samples if not repeated[cut][row][j]]
                if cut + 1 < len(cuts):
                    pieces.append(segment(row, cut + 1))
    return _experience([piece for piece in pieces if piece.end > piece.first])


def _experience(pieces: list[_Piece]) -> Experience:
    prompts = [tuple(p.batch.prompt(p.row) + p.batch.tokens[p.row, : p.first].tolist()) for p in pieces]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    logprobs = [p.batch.full_logprobs[p.row, p.first : p.end] for p in pieces]
    return Experience(
        prompts=[list(prompt) for prompt in places],
        prompt_of=[places[prompt] for prompt in prompts],
        completions=[p.batch.tokens[p.row, p.first : p.end] for p in pieces],
        mask=[p.batch.sampled[p.row, p.first : p.end] & (not (p.skipped or p.masked)) for p in pieces],
        rollout_logprobs=logprobs,
        advantages=torch.tensor([0.0 if p.skipped else p.advantage for p in pieces]),
        old_logprobs=logprobs,
        skipped=[p.skipped for p in pieces],
    )
