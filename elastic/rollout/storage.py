"""The rollout record as a file: tensors and prompts in safetensors, the markers in its header."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from elastic.files import write_atomic
from elastic.markers import Markers
from elastic.rollout.record import TENSOR_FIELDS, RolloutBatch

_FORMAT = "elastic.rollout version 2"
_FORMAT_1 = "elastic.rollout version 1"  # knew neither padding id nor run seed


def save_batch(batch: RolloutBatch, path: str | os.PathLike) -> None:
    """See `RolloutBatch.save`."""
    tensors = {name: getattr(batch, name).contiguous().cpu() for name in TENSOR_FIELDS}
    flat = [token for prompt in batch.prompts for token in prompt]
    tensors["prompt_tokens"] = torch.tensor(flat, dtype=torch.int64)
    tensors["prompt_lengths"] = torch.tensor([len(prompt) for prompt in batch.prompts], dtype=torch.int64)
    values = {
        "markers": _plain(batch.markers),
        "eos_ids": list(batch.eos_ids),
        "pad_id": batch.pad_id,
        "run_seed": batch.run_seed,
    }
    header = {"format": _FORMAT} | {name: json.dumps(value) for name, value in values.items()}
    write_atomic(Path(path), save_tensors(tensors, header))


def load_batch(path: str | os.PathLike, tokenizer: Any = None) -> RolloutBatch:
    """See `RolloutBatch.load`."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path: {os.fspath(path)!r} is no safetensors file ({error})") from error
    found = header.get("format")
    if found not in (_FORMAT, _FORMAT_1):
        raise ValueError(f"path: {os.fspath(path)!r}: expected {_FORMAT!r}, got {found!r}")
    flat, lengths = tensors.pop("prompt_tokens"), tensors.pop("prompt_lengths")
    prompts = [part.tolist() for part in flat.split(lengths.tolist())] if len(lengths) else []
    return RolloutBatch(
        **tensors,
        prompts=prompts,
        markers=_markers(json.loads(header["markers"]), tokenizer),
        eos_ids=tuple(json.loads(header["eos_ids"])),
        pad_id=json.loads(header["pad_id"]) if found == _FORMAT else _padding(tensors),
        run_seed=json.loads(header["run_seed"]) if found == _FORMAT else None,
        tokenizer=tokenizer,
    )


def _padding(tensors: dict[str, torch.Tensor]) -> int:
    """The padding id of a file that does not name it: what stands behind the first shorter row, or 0."""
    tokens, lengths = tensors["tokens"], tensors["lengths"]
    behind = tokens[torch.arange(tokens.shape[1]) >= lengths[:, None]]
    return int(behind[0]) if len(behind) else 0


def _plain(markers: Markers) -> dict[str, Any]:
    return {
        "start": list(markers.start),
        "end": list(markers.end),
        "start_text": markers.start_text,
        "end_text": markers.end_text,
        "start_merged": [sorted(ids) for ids in markers.start_merged],
        "end_merged": [sorted(ids) for ids in markers.end_merged],
        "text_before_start": sorted(markers.text_before_start),
    }


def _markers(plain: dict[str, Any], tokenizer: Any) -> Markers:
    merged = {}
    for name in ("start_merged", "end_merged"):
        first, last = plain[name]
        merged[name] = (frozenset(first), frozenset(last))
    return Markers(
        tuple(plain["start"]),
        tuple(plain["end"]),
        plain["start_text"],
        plain["end_text"],
        tokenizer,
        text_before_start=frozenset(plain["text_before_start"]),
        **merged,
    )
