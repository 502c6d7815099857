"""The rollout record as a file: tensors and prompts in safetensors, the markers in its header."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from elastic.budget import Phase
from elastic.budget.markers import Markers, NaturalEnd
from elastic.budget.pattern import Spelling
from elastic.data.files import write_atomic
from elastic.rollout.record.kept import KeptSets

_FORMAT = "elastic.rollout version 4"  # version 3 without kept sets
_FORMAT_3 = "elastic.rollout version 3"
_FORMAT_2 = "elastic.rollout version 2"  # one spelling per marker; rows began as their prompts say
_FORMAT_1 = "elastic.rollout version 1"  # neither padding id nor run seed besides


def write_record(
    path: str | os.PathLike,
    tensors: dict[str, torch.Tensor],
    *,
    prompts: list[list[int]],
    markers: Markers,
    eos_ids: tuple[int, ...],
    pad_id: int,
    run_seed: int | None,
    stop: tuple[str, ...],
    dropped: dict[int, str],
    kept: KeptSets | None,
) -> None:
    """Writes a record, as `RolloutBatch.save` says; the arguments are its fields."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    flat = [token for prompt in prompts for token in prompt]
    tensors["prompt_tokens"] = torch.tensor(flat, dtype=torch.int64)
    if kept is not None:
        tensors |= {"kept_counts": kept.counts.cpu(), "kept_ids": kept.ids.cpu()}
    tensors["prompt_lengths"] = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64)
    values = {"markers": _plain(markers), "eos_ids": list(eos_ids), "pad_id": pad_id, "run_seed": run_seed}
    values |= {"stop": list(stop), "dropped": dropped}
    header = {"format": _FORMAT_3 if kept is None else _FORMAT} | {
        name: json.dumps(value) for name, value in values.items()
    }
    write_atomic(Path(path), save_tensors(tensors, header))


def read_record(path: str | os.PathLike, tokenizer: Any) -> dict[str, Any]:
    """The fields of a `RolloutBatch`, see its `load`. The tokenizer is that of the markers."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path: {os.fspath(path)!r} is no safetensors file ({error})") from error
    found = header.get("format")
    if found not in (_FORMAT, _FORMAT_3, _FORMAT_2, _FORMAT_1):
        raise ValueError(f"path: {os.fspath(path)!r}: expected {_FORMAT!r}, got {found!r}")
    flat, lengths = tensors.pop("prompt_tokens"), tensors.pop("prompt_lengths")
    prompts = [part.tolist() for part in flat.split(lengths.tolist())] if len(lengths) else []
    values = json.loads(header["markers"])
    old = found in (_FORMAT_2, _FORMAT_1)
    markers = _markers(_with_spellings(values) if old else values, tokenizer)
    if old:
        tensors |= _beginnings(tensors, prompts, markers)
    sets = [tensors.pop(name) for name in ("kept_counts", "kept_ids") if name in tensors]
    return {
        **tensors,
        "kept": KeptSets(*sets) if sets else None,
        "prompts": prompts,
        "markers": markers,
        "eos_ids": tuple(json.loads(header["eos_ids"])),
        "pad_id": _padding(tensors) if found == _FORMAT_1 else json.loads(header["pad_id"]),
        "run_seed": None if found == _FORMAT_1 else json.loads(header["run_seed"]),
        "stop": tuple(json.loads(header.get("stop", "[]"))),
        "dropped": {int(k): why for k, why in json.loads(header.get("dropped", "{}")).items()},
    }


def _beginnings(
    tensors: dict[str, torch.Tensor], prompts: list[list[int]], markers: Markers
) -> dict[str, torch.Tensor]:
    """How the rows of a file from before R19 and R22 began, and that nobody ended their thinking."""
    index, phase = tensors["prompt_index"], tensors["phase"]
    read = torch.tensor([int(markers.initial_phase(prompt)) for prompt in prompts], dtype=torch.uint8)[index]
    # The markers of a file loaded without a tokenizer know no white space; the first token's phase does.
    first = phase[:, 0] if phase.shape[1] else torch.full_like(read, int(Phase.DONE))
    thinking = (first >= Phase.THINKING) & (first <= Phase.NOTICE)
    read = torch.where(thinking, int(Phase.THINKING), torch.where(first == Phase.OPENING, first, read))
    return {
        "initial_phase": read.to(torch.uint8),
        "initial_thinking": torch.zeros_like(index),
        "ended_at": torch.full_like(index, -1),
    }


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
        "start_spellings": [_plain_spelling(s) for s in markers.start_spellings],
        "end_spellings": [_plain_spelling(s) for s in markers.end_spellings],
        "ends": [
            {"spellings": [_plain_spelling(s) for s in end.spellings], "text": end.text, "opens": end.opens}
            for end in markers.ends
        ],
    }


def _plain_spelling(spelling: Spelling) -> dict[str, list[int]]:
    sets = {"first": spelling.first, "last": spelling.last, "text_before": spelling.text_before}
    return {"ids": list(spelling.ids)} | {name: sorted(ids) for name, ids in sets.items()}


def _markers(plain: dict[str, Any], tokenizer: Any) -> Markers:
    return Markers(
        tuple(plain["start"]),
        tuple(plain["end"]),
        plain["start_text"],
        plain["end_text"],
        tokenizer,
        ends=tuple(
            NaturalEnd(_spellings(end["spellings"]), end["text"], end["opens"]) for end in plain["ends"]
        ),
        start_spellings=_spellings(plain["start_spellings"]),
        end_spellings=_spellings(plain["end_spellings"]),
    )


def _spellings(plain: list[dict[str, list[int]]]) -> tuple[Spelling, ...]:
    return tuple(
        Spelling(tuple(s["ids"]), frozenset(s["first"]), frozenset(s["last"]), frozenset(s["text_before"]))
        for s in plain
    )


def _with_spellings(plain: dict[str, Any]) -> dict[str, Any]:
    """Markers as versions 1 and 2 wrote them, in today's form."""
    before = {"start": plain["text_before_start"], "end": []}
    spellings = {}
    for name in ("start", "end"):
        first, last = plain[f"{name}_merged"]
        spelling = {"ids": plain[name], "first": first, "last": last, "text_before": before[name]}
        spellings[f"{name}_spellings"] = [spelling]
    return plain | spellings | {"ends": []}
