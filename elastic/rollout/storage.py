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

_FORMAT = "elastic.rollout version 1"


def save_batch(batch: RolloutBatch, path: str | os.PathLike) -> None:
    """See `RolloutBatch.save`."""
    tensors = {name: getattr(batch, name).contiguous().cpu() for name in TENSOR_FIELDS}
    flat = [token for prompt in batch.prompts for token in prompt]
    tensors["prompt_tokens"] = torch.tensor(flat, dtype=torch.int64)
    tensors["prompt_lengths"] = torch.tensor([len(prompt) for prompt in batch.prompts], dtype=torch.int64)
    eos_ids = json.dumps(list(batch.eos_ids))
    header = {"format": _FORMAT, "markers": json.dumps(_plain(batch.markers)), "eos_ids": eos_ids}
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
    if found != _FORMAT:
        raise ValueError(f"path: {os.fspath(path)!r}: expected {_FORMAT!r}, got {found!r}")
    flat, lengths = tensors.pop("prompt_tokens"), tensors.pop("prompt_lengths")
    prompts = [part.tolist() for part in flat.split(lengths.tolist())] if len(lengths) else []
    markers = _markers(json.loads(header["markers"]), tokenizer)
    eos_ids = tuple(json.loads(header["eos_ids"]))
    return RolloutBatch(**tensors, prompts=prompts, markers=markers, eos_ids=eos_ids, tokenizer=tokenizer)


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
