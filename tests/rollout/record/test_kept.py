"""Kept sets of a record: what the engine writes, rows picked and joined, files; docs/kept-set.md."""

import pytest
import torch

from elastic import RolloutBatch, RolloutEngine, Sampling, ops
from elastic.rollout.record.batch import TENSOR_FIELDS
from elastic.rollout.record.kept import KeptBuffer, KeptSets
from tests.rollout.calls import assert_same, mixed_budgets

PROMPTS = ["ab1+2=<think>", "c<think>", "hello<think>\n"]
FILTERED = Sampling(temperature=0.9, top_k=6, top_p=0.8, seed=3, most_kept=6)
ARGUMENTS = {"samples_per_prompt": 4, "max_new_tokens": 70, "budget": mixed_budgets(12, 2)}


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    return RolloutEngine(model, tokenizer, max_rows=5)


@pytest.fixture(scope="module")
def batch(engine):
    return engine.generate(PROMPTS, sampling=FILTERED, **ARGUMENTS)


def sets_of(batch: RolloutBatch, row: int) -> list[list[int]]:
    """The ids of each of a row's tokens."""
    assert batch.kept is not None
    length = int(batch.lengths[row])
    sizes = batch.kept.sizes[row]
    assert not sizes[length:].any()
    return [ids.tolist() for ids in batch.kept.of_rows()[row].split(sizes[:length].tolist())]


def test_a_sampled_token_is_among_its_ids_and_no_other_token_has_any(batch):
    assert (~batch.sampled).any()
    for row in range(len(batch)):
        tokens = zip(
            batch.tokens[row].tolist(), batch.sampled[row].tolist(), sets_of(batch, row), strict=False
        )
        for token, sampled, ids in tokens:
            assert token in ids if sampled else ids == []
            assert ids == sorted(set(ids))
            assert len(ids) <= 6


def test_logprobs_of_the_record_are_those_among_its_ids(engine, batch):
    for row in range(0, len(batch), 3):
        prompt, length = batch.prompt(row), int(batch.lengths[row])
        ids = torch.tensor([prompt + batch.tokens[row, :length].tolist()])
        with torch.no_grad():
            logits = engine.model(ids).logits[0, len(prompt) - 1 : -1]
        sizes = batch.kept.sizes[row, :length]
        offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        kept = {"kept_ids": batch.kept.of_rows()[row], "kept_offsets": offsets}
        logprobs, _ = ops.token_logprobs(logits, batch.tokens[row, :length], 0.9, **kept)
        drawn = batch.sampled[row, :length]
        torch.testing.assert_close(logprobs[drawn], batch.logprobs[row, :length][drawn], atol=1e-5, rtol=0)


def test_recording_changes_nothing_else(engine, batch):
    plain = engine.generate(PROMPTS, sampling=Sampling(0.9, top_k=6, top_p=0.8, seed=3), **ARGUMENTS)
    assert plain.kept is None
    assert_same(batch, plain, TENSOR_FIELDS)


def test_sets_above_the_limit_are_counted_and_left_out(engine, batch):
    few = engine.generate(PROMPTS, sampling=Sampling(0.9, 6, 0.8, seed=3, most_kept=2), **ARGUMENTS)
    counts = batch.kept.counts
    assert torch.equal(few.kept.counts, torch.where(counts > 2, -counts, counts))
    assert (counts > 2).any()
    assert len(few.kept.ids) == int(few.kept.sizes.sum())


@pytest.mark.parametrize("sampling", [Sampling(0.9, most_kept=9), Sampling(0.0, top_k=2, most_kept=9)])
def test_without_a_filter_nothing_is_recorded(engine, sampling):
    assert engine.generate(PROMPTS[:1], sampling=sampling, max_new_tokens=3).kept is None


def test_rows_may_differ_in_their_sampling(engine):
    samplings = [FILTERED, Sampling(0.9, seed=3), Sampling(0.9, top_k=2, seed=3, most_kept=1)]
    mixed = engine.generate(PROMPTS, sampling=samplings, max_new_tokens=20)
    assert mixed.kept.counts.clamp(max=7).amax(1).tolist()[1] == 0
    assert mixed.kept.counts.amax(1).tolist()[2] == 2  # the largest limit of a call is that of its rows


def test_rows_keep_their_sets_when_picked_and_joined(batch):
    picked = batch[[7, 2, 2]]
    assert [sets_of(picked, i) for i in range(3)] == [sets_of(batch, i) for i in (7, 2, 2)]
    joined = RolloutBatch.cat([batch[5], batch[:0], batch[[1, 0]]])
    assert [sets_of(joined, i) for i in range(3)] == [sets_of(batch, i) for i in (5, 1, 0)]


def test_a_record_without_sets_can_be_joined(engine, batch):
    plain = engine.generate(PROMPTS[:1], sampling=Sampling(0.9, seed=1), max_new_tokens=80)
    joined = RolloutBatch.cat([plain, batch[3]])
    assert not any(sets_of(joined, 0))
    assert sets_of(joined, 1) == sets_of(batch, 3)
    assert RolloutBatch.cat([plain, plain]).kept is None


def test_files_have_the_sets(batch, tokenizer, tmp_path):
    batch.save(tmp_path / "record.safetensors")
    loaded = RolloutBatch.load(tmp_path / "record.safetensors", tokenizer)
    assert torch.equal(loaded.kept.counts, batch.kept.counts)
    assert torch.equal(loaded.kept.ids, batch.kept.ids)
    batch[:0].save(tmp_path / "none.safetensors")
    assert len(RolloutBatch.load(tmp_path / "none.safetensors").kept.ids) == 0


def test_a_row_of_a_stream_has_its_sets(engine, batch):
    with engine.stream(PROMPTS, sampling=FILTERED, **ARGUMENTS) as stream:
        records = [event.record for event in stream if hasattr(event, "record")]
    seeds = batch.seeds.tolist()
    for record in records:
        assert sets_of(record, 0) == sets_of(batch, seeds.index(int(record.seeds[0])))


def test_a_row_that_overshot_its_stop_string_has_no_set_behind_it(engine):
    arguments = {"sampling": FILTERED, "max_new_tokens": 60, "phase": "solution"}
    whole = engine.generate(PROMPTS[1:2], **arguments)
    stop = engine.tokenizer.decode(whole.tokens[0, 5:7].tolist())
    cut = engine.generate(PROMPTS[1:2], **arguments, stop=[stop])
    length = int(cut.lengths[0])
    assert length < int(whole.lengths[0])
    assert sets_of(cut, 0) == sets_of(whole, 0)[:length]


def test_pieces_come_together_row_by_row():
    """Two flushes of two slots; slot 1 has no row in the first, row 0 in the second. K = 2."""
    buffer = KeptBuffer()
    first = torch.tensor([[[5, 6], [9, 9]], [[7, 0], [9, 9]]], dtype=torch.int32)
    buffer.write(torch.tensor([[2, 2], [1, 1]], dtype=torch.int32), first, [1, -1], [0, 0])
    second = torch.tensor([[[8, 0], [1, 2]]], dtype=torch.int32)
    buffer.write(torch.tensor([[3, 2]], dtype=torch.int32), second, [1, 0], [2, 0])
    sets = buffer.sets([0, 1], torch.tensor([1, 3]), 3)
    assert sets.counts.tolist() == [[2, 0, 0], [2, 1, -3]]
    assert sets.ids.tolist() == [1, 2, 5, 6, 7]
    cut = buffer.sets([1], torch.tensor([1]), 1)
    assert (cut.counts.tolist(), cut.ids.tolist()) == ([[2]], [5, 6])


def test_a_token_without_a_set_takes_the_place_of_one_that_had_one():
    """As an engine that draws a token again may force it the second time."""
    buffer = KeptBuffer()
    for count, ids in ((2, [5, 6]), (0, [9, 9])):
        counts, ids = (torch.tensor(values, dtype=torch.int32) for values in ([[count]], [[ids]]))
        buffer.write(counts, ids, [0], [0])
    sets = buffer.sets([0], torch.tensor([1]), 1)
    assert (sets.counts.tolist(), sets.ids.tolist()) == ([[0]], [])


def test_rows_of_sets_in_another_order():
    sets = KeptSets(torch.tensor([[1, 0], [2, -5], [0, 1]]), torch.tensor([4, 6, 7, 9]))
    picked = sets.rows(torch.tensor([2, 1]), 2)
    assert (picked.counts.tolist(), picked.ids.tolist()) == ([[0, 1], [2, -5]], [9, 6, 7])
