"""Files of the rollout record: what is written, older versions, and what is refused."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from elastic import Budget, Phase, RolloutBatch, RolloutEngine, replay
from elastic.budget.pattern import Spelling
from elastic.rollout.record.batch import TENSOR_FIELDS
from tests.rollout.calls import HOT
from tests.rollout.records import BUDGETS, same_rows


def test_a_saved_batch_loads_as_it_was(batch, tokenizer, tmp_path):
    path = tmp_path / "rollout.safetensors"
    batch.save(path)
    loaded = RolloutBatch.load(path, tokenizer)
    for name in TENSOR_FIELDS:
        one, other = getattr(loaded, name), getattr(batch, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name
    assert (loaded.prompts, loaded.eos_ids) == (batch.prompts, batch.eos_ids)
    assert (loaded.pad_id, loaded.run_seed) == (batch.pad_id, batch.run_seed)
    assert loaded.markers == batch.markers
    assert [loaded.text(row) for row in range(12)] == [batch.text(row) for row in range(12)]
    budgets = [b for b in BUDGETS for _ in range(4)]
    assert torch.equal(replay(loaded, budgets, loaded.markers).phase, batch.phase)


def test_an_empty_batch_and_other_devices_round_trip(batch, tmp_path):
    batch[[]].save(str(tmp_path / "empty"))
    assert len(RolloutBatch.load(str(tmp_path / "empty"))) == 0
    moved = batch.to("meta")
    assert moved.device.type == "meta"
    assert all(getattr(moved, name).is_meta for name in TENSOR_FIELDS)


def test_a_write_that_fails_leaves_the_old_file(batch, tmp_path, monkeypatch):
    path = tmp_path / "rollout.safetensors"
    batch.save(path)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        batch[:2].save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rollout.safetensors"]


def test_other_files_are_refused(batch, tmp_path):
    with pytest.raises(FileNotFoundError):
        RolloutBatch.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello, this is no tensor file")
    with pytest.raises(ValueError, match="no safetensors file"):
        RolloutBatch.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"expected 'elastic\.rollout version 4', got None"):
        RolloutBatch.load(tmp_path / "other")


def write_old(batch, path, version, merged=((), ())):
    """The batch as versions 1 and 2 wrote it: one spelling a marker, and not how rows began or were ended."""
    batch.save(path)
    with safe_open(path, framework="pt") as file:
        names = ("eos_ids",) if version == 1 else ("eos_ids", "pad_id", "run_seed")
        header = {name: file.metadata()[name] for name in names}
        new = ("initial_phase", "initial_thinking", "ended_at")
        tensors = {name: file.get_tensor(name) for name in file.keys() if name not in new}  # noqa: SIM118
    markers = {"start": [2], "end": [3], "start_text": "<think>", "end_text": "</think>"}
    markers |= {"start_merged": merged, "end_merged": [[], [45]], "text_before_start": [44]}
    header |= {"format": f"elastic.rollout version {version}", "markers": json.dumps(markers)}
    save_file(tensors, path, header)


def test_a_file_of_version_1_loads_with_the_padding_that_it_shows(batch, tmp_path):
    """That version named neither padding id nor run seed."""
    write_old(replace(batch, run_seed=6)._padded_with(44), tmp_path / "old", 1)
    old = RolloutBatch.load(tmp_path / "old")
    assert (old.pad_id, old.run_seed, old.eos_ids) == (44, None, batch.eos_ids)
    same_rows(old, batch, list(range(12)))


def test_a_file_of_version_2_loads_with_its_merged_tokens_and_beginnings(model, tokenizer, tmp_path):
    engine = RolloutEngine(model, tokenizer)
    prompts = ["a<think>\n", "b", "a<think></think>\n", "x"]
    batch = engine.generate(prompts, Budget(3, 4), 3, HOT, phase=[None, "opening", None, "solution"])
    write_old(batch, tmp_path / "old", 2, merged=[[44], [44]])
    old = RolloutBatch.load(tmp_path / "old", tokenizer)
    assert (old.pad_id, old.run_seed) == (batch.pad_id, batch.run_seed)
    assert old.markers.start_spellings == (Spelling((2,), frozenset([44]), frozenset([44]), frozenset([44])),)
    assert old.markers.end_spellings == (Spelling((3,), frozenset(), frozenset([45])),)
    assert old.initial_phase[:9].tolist() == [Phase.THINKING] * 3 + [Phase.OPENING] * 3 + [Phase.SOLUTION] * 3
    assert (old.initial_thinking.tolist(), old.ended_at.tolist()) == ([0] * 12, [-1] * 12)
    # Without a tokenizer white space is no white space to the markers, and the rows still begin as they did.
    bare = RolloutBatch.load(tmp_path / "old")
    assert bare.initial_phase[:3].tolist() == [Phase.THINKING] * 3


def test_a_file_of_a_later_version_is_refused(batch, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "new", {"format": "elastic.rollout version 5"})
    with pytest.raises(ValueError, match=r"expected 'elastic\.rollout version 4', got '.* version 5'"):
        RolloutBatch.load(tmp_path / "new")
