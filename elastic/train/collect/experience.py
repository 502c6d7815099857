"""One process's share of a rollout batch, in the form the update reads: unpadded rows.

R rows, n tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure


@dataclass(frozen=True)
class Experience:
    """Rows ready for updates. Tensors are on the CPU until they are packed.

    Attributes:
        prompts: token ids, one list per group.
        prompt_of: [R] index of each row's prompt.
        completions: R tensors [n] int64, forced tokens included: they are attended to.
        mask: R tensors [n] bool, True where a token carries loss: the SAMPLED ones.
        rollout_logprobs: R tensors [n] float32: of tokens with a kept set under the sampling distribution, of
            the others under the temperature-scaled softmax; 0 where not SAMPLED.
        advantages: [R] float32.
        old_logprobs: R tensors [n] float32 the ratio is taken against.
        ref_logprobs: R tensors [n] float32 of the frozen reference; empty without one.
        kept_counts: R tensors [n] int32, the ids of each token's kept set, 0 for none; empty without any.
        kept_ids: R tensors [m] int32, these ids, token by token.
        skipped: R bools, True for a row without a reward: no loss, and no denominator counts it; empty for
            none.
    """

    prompts: list[list[int]]
    prompt_of: list[int]
    completions: list[Tensor]
    mask: list[Tensor]
    rollout_logprobs: list[Tensor]
    advantages: Tensor
    old_logprobs: list[Tensor] = field(default_factory=list)
    ref_logprobs: list[Tensor] = field(default_factory=list)
    kept_counts: list[Tensor] = field(default_factory=list)
    kept_ids: list[Tensor] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)

    @classmethod
    def from_rollout(
        cls,
        batch: RolloutBatch,
        advantages: Tensor,
        mask_cut_solutions: bool = False,
        skipped: Tensor | None = None,
    ) -> "Experience":
        """Unpads a rollout batch.

        Only SAMPLED tokens carry loss: a forced end marker takes no advantage, and padding is never read,
        so a padding id that equals EOS puts no second EOS into the loss.

        Args:
            batch: on any device.
            advantages: [R] float.
            mask_cut_solutions: leave rows that a limit ended (finish reason other than ``stop``) out of the
                loss; the recorded finish reason decides, not the last token.
            skipped: [R] bool, rows without a reward.
        """
        batch = batch.to("cpu")
        lengths = batch.lengths.tolist()
        sampled = batch.sampled
        if mask_cut_solutions:
            sampled = sampled & ~measure(batch).truncated[:, None]
        if skipped is not None:
            sampled = sampled & ~skipped.cpu()[:, None]

        def rows(values: Tensor) -> list[Tensor]:
            return [value[:length] for value, length in zip(values, lengths, strict=True)]

        sets = batch.kept
        has_set = torch.zeros_like(sampled) if sets is None else sets.counts > 0
        logprobs = rows(torch.where(has_set, batch.logprobs, batch.full_logprobs))
        return cls(
            prompts=batch.prompts,
            prompt_of=batch.prompt_index.tolist(),
            completions=rows(batch.tokens),
            mask=rows(sampled),
            rollout_logprobs=logprobs,
            advantages=advantages.detach().cpu().float(),
            old_logprobs=logprobs,
            kept_counts=[] if sets is None else rows(sets.counts.clamp(min=0)),
            kept_ids=[] if sets is None else sets.of_rows(),
            skipped=[] if skipped is None else skipped.tolist(),
        )

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def lengths(self) -> list[int]:
        """[R] tokens of each row."""
        return [completion.numel() for completion in self.completions]

    @property
    def loss_tokens(self) -> int:
        """Tokens that carry loss."""
        return int(sum(int(mask.sum()) for mask in self.mask))

    @property
    def loss_rows(self) -> int:
        """Rows that count in the loss's denominators: all but the skipped ones."""
        return len(self) - sum(self.skipped)

    def select(self, rows: Sequence[int]) -> "Experience":
        """Some of the rows, in the order given."""

        def take(values: list[Tensor]) -> list[Tensor]:
            return [values[row] for row in rows] if values else []

        return replace(
            self,
            prompt_of=[self.prompt_of[row] for row in rows],
            completions=take(self.completions),
            mask=take(self.mask),
            rollout_logprobs=take(self.rollout_logprobs),
            advantages=self.advantages[list(rows)],
            old_logprobs=take(self.old_logprobs),
            ref_logprobs=take(self.ref_logprobs),
            kept_counts=take(self.kept_counts),
            kept_ids=take(self.kept_ids),
            skipped=[self.skipped[row] for row in rows] if self.skipped else [],
        )

    def without_loss(self) -> "Experience":
        """The shortest row, no token of which carries loss."""
        shortest = min(range(len(self)), key=self.lengths.__getitem__)
        row = self.select([shortest])
        return replace(row, mask=[torch.zeros_like(mask) for mask in row.mask])

    def rows_with_gradient(self) -> list[int]:
        """Rows whose policy term is not exactly zero everywhere: some advantage and some unmasked token."""
        return [
            row
            for row, advantage in enumerate(self.advantages.tolist())
            if advantage != 0 and bool(self.mask[row].any())
        ]

    def split(self, pieces: int, most_tokens: int = 0) -> list["Experience"]:
        """Contiguous pieces of near equal size in packed tokens.

        Rows of one group mostly stay together, so their prompt is packed once.

        Args:
            pieces: how many, at most R.
            most_tokens: most packed tokens of a piece; more pieces are made where needed. A single row may
                exceed it. 0 for no limit.
        """
        sizes = self.lengths
        ends = _balanced(sizes, min(pieces, len(sizes)))
        while most_tokens and len(ends) < len(sizes) and self._largest(ends) > most_tokens:
            ends = _balanced(sizes, len(ends) + 1)
        starts = [0, *ends[:-1]]
        return [self.select(range(start, end)) for start, end in zip(starts, ends, strict=True)]

    def _largest(self, ends: list[int]) -> int:
        largest, start = 0, 0
        for end in ends:
            prompts = {self.prompt_of[row] for row in range(start, end)}
            tokens = sum(self.lengths[start:end]) + sum(len(self.prompts[prompt]) for prompt in prompts)
            largest, start = max(largest, tokens), end
        return largest


def _balanced(sizes: list[int], pieces: int) -> list[int]:
    """Ends of contiguous pieces: each boundary where the running sum comes closest to its equal share."""
    total = sum(sizes)
    ends: list[int] = []
    for piece in range(1, pieces):
        share = total * piece / pieces
        last = len(sizes) - (pieces - piece)  # every later piece needs a row
        row = ends[-1] + 1 if ends else 1
        done = sum(sizes[:row])
        while row < last and done + sizes[row] / 2 <= share:
            done += sizes[row]
            row += 1
        ends.append(row)
    return [*ends, len(sizes)]
