"""The rollout record: everything that is known about a batch of completions, as tensors.

R rows (completions), T tokens of the longest one, K prompts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from elastic.budget import FinishReason, Phase, Source
from elastic.budget.markers import Markers
from elastic.rollout.record.indices import row_index, row_indices
from elastic.rollout.record.joining import check_alike, widen
from elastic.rollout.record.kept import KeptSets
from elastic.rollout.record.row_text import first_stop
from elastic.rollout.record.spans import thinking_span
from elastic.rollout.record.storage import read_record, write_record


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """Completions of a batch of prompts, one row each, in order of submission (SPEC section 3).

    Columns behind a row's length hold the padding id, source PAD, phase DONE and logprob 0.

    Attributes:
        tokens: [R, T] int64.
        source: [R, T] uint8, `Source`; only SAMPLED tokens count against budgets and carry loss.
        phase: [R, T] uint8, `Phase` the token was emitted in.
        logprobs: [R, T] float32, under the sampling distribution (temperature and filters); 0 where not
            SAMPLED.
        full_logprobs: [R, T] float32, under the temperature-scaled softmax over the whole vocabulary; 0 where
            not SAMPLED.
        lengths: [R] int64, emitted tokens, EOS and forced tokens included.
        thinking_tokens, solution_tokens: [R] int64, tokens that counted against each budget: the sampled
            ones, and for thinking those of `initial_thinking`.
        thinking_cut: [R] bool, whether closing tokens were forced.
        finish_reason: [R] uint8, `FinishReason`.
        initial_phase: [R] uint8, `Phase` before the first token: OPENING, THINKING or SOLUTION (R9, R19).
        initial_thinking: [R] int64, thinking tokens that counted before the first one (R19).
        ended_at: [R] int64, tokens that the row had emitted when its thinking was ended from outside (R22);
            -1 where it was not.
        seeds: [R] int64, key of each row's generator; its counter is the token's column, so a row whose
            generation goes on does so at position `lengths`.
        prompt_index: [R] int64 into `prompts`; rows with the same index form a group.
        prompts: K lists of token ids.
        markers: the markers the budgets were enforced with.
        eos_ids: the tokens that ended rows.
        pad_id: what stands in `tokens` behind a row's length.
        run_seed: what the seeds of the call that made the rows derive from; None where they were given one by
            one, where rows had several, or where rows of several calls were joined.
        stop: the strings that ended rows, finish reason STOP, in their solution. A row's tokens go up to the
            one that completed such a string; its texts end in front of the string.
        dropped: prompts that did not fit the context, by their index in `prompts`, with the reason; they have
            no rows. Only in what a call returned, or joined batches of these.
        kept: the ids that filters left when tokens were drawn (`Sampling.most_kept`); None where none are
            recorded. A token's logprob is its logprob among these ids (`ops.token_logprobs`).
        tokenizer: what the text methods decode with; not saved.
    """

    tokens: Tensor
    source: Tensor
    phase: Tensor
    logprobs: Tensor
    full_logprobs: Tensor
    lengths: Tensor
    thinking_tokens: Tensor
    solution_tokens: Tensor
    thinking_cut: Tensor
    finish_reason: Tensor
    initial_phase: Tensor
    initial_thinking: Tensor
    ended_at: Tensor
    seeds: Tensor
    prompt_index: Tensor
    prompts: list[list[int]]
    markers: Markers
    eos_ids: tuple[int, ...] = ()
    pad_id: int = 0
    run_seed: int | None = None
    stop: tuple[str, ...] = ()
    dropped: dict[int, str] = field(default_factory=dict)
    kept: KeptSets | None = None
    tokenizer: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def group(self) -> Tensor:
        """[R] int64: rows of one prompt share a number."""
        return self.prompt_index

    @property
    def sampled(self) -> Tensor:
        """[R, T] bool: the tokens the model chose, that is the mask of the loss."""
        return self.source == Source.SAMPLED

    def prompt(self, row: int) -> list[int]:
        """Token ids of the prompt of a row."""
        return self.prompts[int(self.prompt_index[row_index(row, len(self))])]

    def to(self, device: torch.device | str) -> RolloutBatch:
        """A copy with every tensor on `device`."""
        tensors: dict[str, Any] = {name: getattr(self, name).to(device) for name in TENSOR_FIELDS}
        return replace(self, kept=self.kept and self.kept.to(device), **tensors)

    def __getitem__(self, rows: Any) -> RolloutBatch:
        """Some of the rows as a batch: an index, a slice, a list or tensor of indices, or a mask [R] bool.

        Prompts without a row are dropped, and the columns behind the longest row that is left.

        Args:
            rows: integers of Python, torch or numpy, negative ones from the end; a single one gives a batch
                of one row.

        Raises:
            IndexError: an index out of range, or a mask of another length.
            TypeError: anything else, such as a float or a single True.
        """
        chosen = row_indices(rows, len(self)).to(self.device)
        kept = self.prompt_index[chosen].cpu()
        used = sorted(set(kept.tolist()))
        renumbered = torch.zeros(len(self.prompts), dtype=torch.int64)
        renumbered[used] = torch.arange(len(used))
        width = int(self.lengths[chosen].max()) if len(chosen) else 0
        tensors: dict[str, Any] = {name: getattr(self, name)[chosen] for name in TENSOR_FIELDS}
        tensors |= {name: tensors[name][:, :width] for name in PER_TOKEN_FIELDS}
        tensors["prompt_index"] = renumbered[kept].to(self.device)
        tensors["kept"] = self.kept and self.kept.rows(chosen, width)
        return replace(self, prompts=[self.prompts[i] for i in used], dropped={}, **tensors)

    @staticmethod
    def cat(batches: Iterable[RolloutBatch]) -> RolloutBatch:
        """Rows of several batches one after the other; prompts stay apart even where they are equal.

        The first batch's padding id is written behind every row. A batch without a tokenizer (loaded from a
        file) takes that of the others.

        Raises:
            ValueError: no batch, or batches that differ in markers, EOS ids, stop strings, vocabulary or
                device: the one value that the result has of each would be wrong for some of its rows.
        """
        parts = list(batches)
        if not parts:
            raise ValueError("batches: expected at least one, got none")
        check_alike(parts)
        pad_id, width = parts[0].pad_id, max(part.tokens.shape[1] for part in parts)
        padding = {"tokens": pad_id, "source": int(Source.PAD), "phase": int(Phase.DONE)}
        parts = [part._padded_with(pad_id) for part in parts]
        tensors: dict[str, Any] = {}
        for name in TENSOR_FIELDS:
            pieces = [getattr(part, name) for part in parts]
            if name in PER_TOKEN_FIELDS:
                pieces = [widen(piece, width, padding.get(name, 0)) for piece in pieces]
            tensors[name] = torch.cat(pieces)
        counts = [len(part.prompts) for part in parts]
        offsets = [sum(counts[:i]) for i in range(len(parts))]
        moved = list(zip(parts, offsets, strict=True))
        tensors["prompt_index"] = torch.cat([part.prompt_index + offset for part, offset in moved])
        shapes = [part.tokens.shape for part in parts]
        tensors["kept"] = KeptSets.cat([part.kept for part in parts], shapes, width)
        return replace(
            next((part for part in parts if part.tokenizer is not None), parts[0]),
            prompts=[p for part in parts for p in part.prompts],
            dropped={k + offset: why for part, offset in moved for k, why in part.dropped.items()},
            run_seed=parts[0].run_seed if len(parts) == 1 else None,
            **tensors,
        )

    def _padded_with(self, pad_id: int) -> RolloutBatch:
        if pad_id == self.pad_id:
            return self
        behind = torch.arange(self.tokens.shape[1], device=self.device) >= self.lengths[:, None]
        return replace(self, tokens=self.tokens.masked_fill(behind, pad_id), pad_id=pad_id)

    def text(self, row: int) -> str:
        """The completion, markers and forced texts included, without the EOS or stop string that ended it."""
        row = row_index(row, len(self))
        written = self._written(row)
        text = self._decode_ids(written)
        if not self._stopped_by_string(row):
            return text
        # It was looked for in what the row wrote last, without forced text in between.
        wrote = (self.source[row] == Source.SAMPLED) & (self.phase[row] == Phase.SOLUTION)
        others = (~wrote[: len(written)]).nonzero()
        begin = int(others[-1]) + 1 if len(others) else 0
        found = first_stop(text, self.stop, len(self._decode_ids(written[:begin])))
        return text[:found] if found >= 0 else text

    def thinking(self, row: int) -> str:
        """The text between the markers, forced texts included; empty if the row never thought."""
        row = row_index(row, len(self))
        first, last, _ = self._thinking_span(row)
        return self.text(row)[first:last]

    def solution(self, row: int) -> str:
        """The text behind the first natural or forced end, without EOS; repeated markers stay in it.

        An end that opens something, such as a tool call, is the beginning of it (R18). A row that answered
        without ever thinking is all solution; one that was cut while thinking has none.
        """
        row = row_index(row, len(self))
        return self.text(row)[self._thinking_span(row)[2] :]

    def _written(self, row: int) -> list[int]:
        """The row's tokens without the EOS that ended it."""
        tokens = self.tokens[row, : int(self.lengths[row])].tolist()
        stopped = int(self.finish_reason[row]) == FinishReason.STOP
        return tokens[:-1] if stopped and not self._stopped_by_string(row) else tokens

    def _stopped_by_string(self, row: int) -> bool:
        if not self.stop or int(self.finish_reason[row]) != FinishReason.STOP:
            return False
        last = int(self.lengths[row]) - 1
        return last >= 0 and int(self.tokens[row, last]) not in self.eos_ids

    def _thinking_span(self, row: int) -> tuple[int, int, int]:
        phases = self.phase[row, : int(self.lengths[row])].tolist()
        return thinking_span(self._written(row), phases, self.markers, self._decode_ids)

    def _decode_ids(self, ids: Sequence[int]) -> str:
        if self.tokenizer is None:
            raise ValueError(
                "tokenizer: this batch has none; give one to RolloutBatch.load or dataclasses.replace"
            )
        # Markers are special tokens of many vocabularies; a text without them could not be split again.
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def to_records(self) -> list[dict[str, Any]]:
        """A dict of plain Python values per row, for JSON lines or parquet; texts if there is a tokenizer."""
        columns = {name: getattr(self, name).tolist() for name in TENSOR_FIELDS}
        records = []
        for row, length in enumerate(columns["lengths"]):
            record: dict[str, Any] = {"row": row, "prompt_tokens": self.prompt(row)}
            record |= {name: columns[name][row][:length] for name in PER_TOKEN_FIELDS}
            record |= {name: columns[name][row] for name in _PER_ROW}
            record["run_seed"] = self.run_seed
            record["finish_reason"] = FinishReason(record["finish_reason"]).text
            record["initial_phase"] = Phase(record["initial_phase"]).name.lower()
            if self.tokenizer is not None:
                record["prompt"] = self._decode_ids(self.prompt(row))
                record |= {
                    "text": self.text(row),
                    "thinking": self.thinking(row),
                    "solution": self.solution(row),
                }
            records.append(record)
        return records

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file in one step: a kill leaves the old file or the new one.

        Raises:
            OSError: the directory is missing or not writable.
        """
        write_record(
            path,
            {name: getattr(self, name) for name in TENSOR_FIELDS},
            prompts=self.prompts,
            markers=self.markers,
            eos_ids=self.eos_ids,
            pad_id=self.pad_id,
            run_seed=self.run_seed,
            stop=self.stop,
            dropped=self.dropped,
            kept=self.kept,
        )

    @staticmethod
    def load(path: str | os.PathLike, tokenizer: Any = None) -> RolloutBatch:
        """Reads what `save` wrote, onto the CPU.

        Args:
            tokenizer: for the text methods; it is not part of the file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no rollout record, or one of another version.
        """
        return RolloutBatch(**read_record(path, tokenizer), tokenizer=tokenizer)


TENSOR_FIELDS = [f.name for f in fields(RolloutBatch) if f.type == "Tensor"]
PER_TOKEN_FIELDS = ["tokens", "source", "phase", "logprobs", "full_logprobs"]
_PER_ROW = [name for name in TENSOR_FIELDS if name not in PER_TOKEN_FIELDS]
