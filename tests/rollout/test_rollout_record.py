"""The rollout record: rows, files, texts."""

import copy
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import biased, make_tokenizer

from elastic import (
    Budget,
    FinishReason,
    Markers,
    Phase,
    RolloutBatch,
    RolloutEngine,
    Sampling,
    Source,
    replay,
)
from elastic.budget.pattern import Spelling
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rollout.record import PER_TOKEN_FIELDS, TENSOR_FIELDS

HOT = Sampling(temperature=1.0, seed=3)
BUDGETS = [Budget(5, 4), Budget(12, 7, closing="so\n</think>ok"), Budget.vanilla(6)]


@pytest.fixture(scope="module")
def batch(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    prompts = ["ab<think>", "c<think>", "ddd<think>"]
    return engine.generate(prompts, BUDGETS, 4, Sampling(temperature=1.0, seed=6))


def same_rows(got: RolloutBatch, expected: RolloutBatch, rows: list[int]) -> None:
    assert len(got) == len(rows)
    for place, row in enumerate(rows):
        length = int(expected.lengths[row])
        assert got.prompt(place) == expected.prompt(row)
        for name in TENSOR_FIELDS:
            if name == "prompt_index":
                continue
            one, other = getattr(got, name)[place], getattr(expected, name)[row]
            if name in PER_TOKEN_FIELDS:
                one, other = one[:length], other[:length]
            assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        (3, [3]),
        (-1, [11]),
        (slice(2, 5), [2, 3, 4]),
        (slice(None, None, 5), [0, 5, 10]),
        ([7, 0, 7], [7, 0, 7]),
        (torch.tensor([10, 4]), [10, 4]),
        (torch.arange(12) % 4 == 1, [1, 5, 9]),
        ([], []),
        (slice(0, 0), []),
        (slice(None, 2, -4), [11, 7, 3]),
        ((1, -12), [1, 0]),
        (range(9, 11), [9, 10]),
        (np.int64(4), [4]),
        (np.array(-2), [10]),
        (np.array([5, 2], dtype=np.int32), [5, 2]),
        (np.arange(12) > 9, [10, 11]),
        (torch.tensor(6), [6]),
        (torch.tensor(-12), [0]),
        (torch.tensor([3, 3], dtype=torch.uint8), [3, 3]),
        ([torch.tensor(8), np.int16(1)], [8, 1]),
        ([False] * 11 + [True], [11]),
    ],
)
def test_rows_can_be_chosen_every_way(batch, chosen, rows):
    got = batch[chosen]
    same_rows(got, batch, rows)
    assert got.tokens.shape[1] == max((int(batch.lengths[r]) for r in rows), default=0)
    assert sorted(set(got.prompt_index.tolist())) == list(range(len(got.prompts)))


def test_a_row_out_of_range_is_an_index_error(batch):
    for row in (12, -13, np.int64(12), torch.tensor(-13), [0, 12], torch.tensor([-13])):
        with pytest.raises(IndexError, match=r"row: expected -12 \.\. 11, got (12|-13)"):
            batch[row]
    for mask in ([True] * 11, torch.ones(13, dtype=torch.bool)):
        with pytest.raises(IndexError, match=r"rows: expected a mask of 12 rows, got one of 1[13]"):
            batch[mask]
    with pytest.raises(IndexError, match=r"row: expected 0 \.\. -1, got 0"):
        batch[[]][0]


@pytest.mark.parametrize(
    "row",
    [
        *(True, False, 1.0, None, "1", [1.0], [True, 2], ["0"], {1}, (i for i in [1])),
        *(torch.tensor(True), torch.tensor(2.0), torch.tensor([1.0]), torch.ones(2, 2, dtype=torch.int64)),
        *(np.bool_(True), np.float64(1), np.zeros((1, 12), dtype=bool)),
    ],
)
def test_what_is_no_row_is_refused(batch, row):
    with pytest.raises(TypeError, match=r"rows?: expected"):
        batch[row]


def test_texts_take_the_same_rows_as_brackets(batch):
    for row in (np.int64(9), torch.tensor(9), -3):
        assert batch.text(row) == batch.text(9)
        assert batch.thinking(row) == batch.thinking(9)
        assert batch.solution(row) == batch.solution(9)
        assert batch.prompt(row) == batch.prompt(9)
    for read in (batch.text, batch.thinking, batch.solution, batch.prompt):
        with pytest.raises(IndexError, match="got 12"):
            read(12)
        with pytest.raises(TypeError, match="got True"):
            read(True)


def test_cat_keeps_rows_and_shifts_groups(batch):
    parts = [batch[8:], batch[:3], batch[5:6]]
    whole = RolloutBatch.cat(parts)
    same_rows(whole, batch, [8, 9, 10, 11, 0, 1, 2, 5])
    assert whole.group.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    behind = torch.arange(whole.tokens.shape[1]) >= whole.lengths[:, None]
    assert (whole.source[behind] == Source.PAD).all()
    assert (whole.phase[behind] == Phase.DONE).all()


def test_cat_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batches: expected at least one"):
        RolloutBatch.cat([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"markers": Markers((4,), (5,))}, "made with different markers"),
        ({"eos_ids": (1, 30)}, r"made with different eos_ids, \[1\] and \[1, 30\]"),
        ({"eos_ids": ()}, r"made with different eos_ids, \[1\] and \[\]"),
        ({"tokenizer": build_tokenizer()}, "tokenizers of different vocabularies"),
    ],
)
def test_cat_refuses_what_cannot_be_true_of_all_rows(batch, changes, message):
    for parts in ([batch, replace(batch, **changes)], [replace(batch, **changes), batch]):
        with pytest.raises(ValueError, match=message.partition(",")[0]):
            RolloutBatch.cat(parts)
    with pytest.raises(ValueError, match=message):
        RolloutBatch.cat([batch, replace(batch, **changes)])


def test_cat_takes_the_same_tokenizer_loaded_twice_and_one_from_a_file(batch):
    again, bare = replace(batch, tokenizer=make_tokenizer()), replace(batch, tokenizer=None)
    assert len(RolloutBatch.cat([batch, again])) == 24
    whole = RolloutBatch.cat([bare, batch])
    assert whole.text(0) == whole.text(12) == batch.text(0)


def test_cat_pads_every_row_with_the_first_batchs_padding_id(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = "z"
    pad = tokenizer.pad_token_id
    batches = []
    for lengths, words in (([2, 9], tokenizer), ([12, 1], make_tokenizer())):
        engine = RolloutEngine(biased(0, 1, -100.0), words)
        batches.append(engine.generate([[7, 2]] * 2, [Budget.vanilla(n) for n in lengths], sampling=HOT))
    assert [batch.pad_id for batch in batches] == [pad, 0]
    for parts, expected in ((batches, pad), (batches[::-1], 0)):
        whole = RolloutBatch.cat(parts)
        behind = torch.arange(12) >= whole.lengths[:, None]
        assert behind.sum() == 10 + 3 + 0 + 11
        assert (whole.tokens[behind] == expected).all()
        assert whole.pad_id == expected
        for row, (part, own) in enumerate((part, own) for part in parts for own in (0, 1)):
            length = int(part.lengths[own])
            assert torch.equal(whole.tokens[row, :length], part.tokens[own, :length])


def test_the_run_seed_is_that_of_one_call(batch):
    assert batch.run_seed == batch[3:5].run_seed == RolloutBatch.cat([batch]).run_seed == 6
    assert RolloutBatch.cat([batch[:1], batch[1:]]).run_seed is None
    assert batch.to_records()[0]["run_seed"] == 6


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
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError):
        RolloutBatch.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello, this is no tensor file")
    with pytest.raises(ValueError, match="no safetensors file"):
        RolloutBatch.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"expected 'elastic\.rollout version 3', got None"):
        RolloutBatch.load(tmp_path / "other")


def write_old(batch, path, version, merged=((), ())):
    """The batch as versions 1 and 2 wrote it: one spelling a marker, and not how rows began or were ended."""
    from safetensors import safe_open
    from safetensors.torch import save_file

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
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "new", {"format": "elastic.rollout version 4"})
    with pytest.raises(ValueError, match=r"expected 'elastic\.rollout version 3', got '.* version 4'"):
        RolloutBatch.load(tmp_path / "new")


def test_records_are_plain_values_of_the_row(batch):
    records = json.loads(json.dumps(batch.to_records()))
    for row, record in enumerate(records):
        length = int(batch.lengths[row])
        assert record["row"] == row
        assert record["tokens"] == batch.tokens[row, :length].tolist()
        assert record["logprobs"] == pytest.approx(batch.logprobs[row, :length].tolist())
        assert record["thinking_cut"] is bool(batch.thinking_cut[row])
        assert record["finish_reason"] == FinishReason(int(batch.finish_reason[row])).text
        assert record["prompt"] == ["ab<think>", "c<think>", "ddd<think>"][row // 4]
        assert record["text"] == batch.text(row)
    bare = replace(batch, tokenizer=None).to_records()
    assert "text" not in bare[0]
    assert bare[0]["tokens"] == records[0]["tokens"]


def hand_made(
    ids: list[int], phases: str, reason: FinishReason, tokenizer, markers: Markers | None = None
) -> RolloutBatch:
    """One row; a letter of `phases` a token: o(pening) t(hinking) c(losing) n(otice) s(olution)."""
    phase = torch.tensor([["otcns".index(p) for p in phases]], dtype=torch.uint8)
    assert len(ids) == phase.shape[1]
    one = torch.zeros(1, dtype=torch.int64)
    return RolloutBatch(
        tokens=torch.tensor([ids]),
        source=torch.zeros_like(phase),
        phase=phase,
        logprobs=torch.zeros(phase.shape),
        full_logprobs=torch.zeros(phase.shape),
        lengths=one + len(ids),
        thinking_tokens=one.clone(),
        solution_tokens=one.clone(),
        thinking_cut=one.bool(),
        finish_reason=torch.tensor([int(reason)], dtype=torch.uint8),
        initial_phase=torch.tensor([int(Phase.THINKING)], dtype=torch.uint8),
        initial_thinking=one.clone(),
        ended_at=one - 1,
        seeds=one.clone(),
        prompt_index=one,
        prompts=[[5]],
        markers=markers or Markers.from_tokenizer(tokenizer),
        tokenizer=tokenizer,
    )


@pytest.mark.parametrize(
    ("text", "phases", "reason", "thinking", "solution"),
    [
        ("ab</think>c<eos>", "tttss", "STOP", "ab", "c"),
        ("ab</think>c", "ttts", "SOLUTION_BUDGET", "ab", "c"),
        # the solution repeats the marker: `split("</think>")[1]` would lose the answer
        ("a</think>b</think>c<eos>", "ttssss", "STOP", "a", "b</think>c"),
        ("a</think><think>b</think>c", "ttssss", "SOLUTION_BUDGET", "a", "<think>b</think>c"),
        ("abx\n</think>ok", "tttccss", "SOLUTION_BUDGET", "abx\n", "ok"),
        ("ab?cd</think>e", "ttnttts", "SOLUTION_BUDGET", "ab?cd", "e"),
        ("abc", "ttt", "TOTAL_BUDGET", "abc", ""),
        ("ab<eos>", "ttt", "STOP", "ab", ""),
        ("ab</think>", "ttt", "LENGTH", "ab", ""),
        ("</think><eos>", "ts", "STOP", "", ""),
        ("\n<think>a</think>b", "ootts", "SOLUTION_BUDGET", "a", "b"),
        ("\n abc<eos>", "oossss", "STOP", "", "\n abc"),
        ("abc", "sss", "SOLUTION_BUDGET", "", "abc"),
        ("\n<think>", "oo", "LENGTH", "", ""),
        ("", "", "LENGTH", "", ""),
    ],
)
def test_texts_are_cut_at_the_first_end_marker(tokenizer, text, phases, reason, thinking, solution):
    batch = hand_made(tokenizer.encode(text), phases, FinishReason[reason], tokenizer)
    assert batch.text(0) == text.removesuffix("<eos>")
    assert (batch.thinking(0), batch.solution(0)) == (thinking, solution)


def test_a_token_that_holds_the_marker_and_more_is_split():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["</think>\n\n"])
    merged = len(tokenizer) - 1
    batch = hand_made([6, 7, merged, 8, 9], "tttss", FinishReason.LENGTH, tokenizer)
    assert batch.text(0) == "ab</think>\n\ncd"
    assert (batch.thinking(0), batch.solution(0)) == ("ab", "\n\ncd")


def test_texts_need_a_tokenizer(batch):
    with pytest.raises(ValueError, match="tokenizer: this batch has none"):
        replace(batch, tokenizer=None).text(0)
