"""The rollout record: its rows, and records put together."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, RolloutBatch, RolloutEngine, Source
from elastic.models.tiny.vocabulary import build_tokenizer
from tests.rollout.calls import HOT
from tests.rollout.records import PROMPTS, same_rows
from tests.rollout.small_models import biased, make_tokenizer


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


def test_records_are_plain_values_of_the_row(batch):
    records = json.loads(json.dumps(batch.to_records()))
    for row, record in enumerate(records):
        length = int(batch.lengths[row])
        assert record["row"] == row
        assert record["tokens"] == batch.tokens[row, :length].tolist()
        assert record["logprobs"] == pytest.approx(batch.logprobs[row, :length].tolist())
        assert record["thinking_cut"] is bool(batch.thinking_cut[row])
        assert record["finish_reason"] == FinishReason(int(batch.finish_reason[row])).text
        assert record["prompt"] == PROMPTS[row // 4]
        assert record["text"] == batch.text(row)
    bare = replace(batch, tokenizer=None).to_records()
    assert "text" not in bare[0]
    assert bare[0]["tokens"] == records[0]["tokens"]


def test_texts_need_a_tokenizer(batch):
    with pytest.raises(ValueError, match="tokenizer: this batch has none"):
        replace(batch, tokenizer=None).text(0)
