"""A call that is followed: its events are the record, rows end when asked to, the model comes back."""

import gc
import threading
import weakref

import pytest
import torch

from elastic import Budget, FinishReason, Phase, RolloutBatch, RolloutEngine, Sampling, Source
from elastic.rollout import Finished, Stream, Token
from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT
from elastic.rollout.record.batch import TENSOR_FIELDS
from tests.rollout.calls import HOT, PROMPTS, assert_replayed, assert_same, mixed_budgets
from tests.rollout.scripted import byte_tokenizer, scripted_engine
from tests.rollout.small_models import biased, make_model

ARGUMENTS = {"budget": mixed_budgets(24, 1), "samples_per_prompt": 4, "sampling": HOT, "max_new_tokens": 90}


def assert_same_batch(batch: RolloutBatch, expected: RolloutBatch) -> None:
    assert_same(batch, expected, TENSOR_FIELDS)
    assert batch.prompts == expected.prompts
    assert batch.run_seed == expected.run_seed


def never_ending(context: int = 256):
    """Neither EOS nor an end of thinking."""
    return biased(0, [1, 3], -100.0, context=context)


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    return RolloutEngine(model, tokenizer, max_rows=5)


def test_events_are_the_record_and_the_batch_is_that_of_generate(engine):
    expected = engine.generate(PROMPTS, **ARGUMENTS)
    rows: dict[int, list[Token]] = {}
    ended: dict[int, RolloutBatch] = {}
    with engine.stream(PROMPTS, **ARGUMENTS) as stream:
        for event in stream:
            assert event.row not in ended  # nothing comes behind a row's end
            if isinstance(event, Token):
                rows.setdefault(event.row, []).append(event)
            else:
                ended[event.row] = event.record
    assert_same_batch(stream.batch, expected)
    assert sorted(ended) == list(range(24))
    for row, record in ended.items():
        assert_same_batch(record, stream.batch[row])
        assert record.to_records()[0]["text"] == stream.batch.text(row)
        length = int(expected.lengths[row])
        columns = (expected.tokens, expected.phase, expected.source)
        fields = [column[row, :length].tolist() for column in columns]
        assert [
            [e.token for e in rows[row]],
            [e.phase for e in rows[row]],
            [e.source for e in rows[row]],
        ] == fields
        assert "".join(event.text for event in rows[row]) == expected.text(row)
    assert isinstance(rows[0][0].phase, Phase)
    assert isinstance(rows[0][0].source, Source)


def test_one_slot_takes_the_rows_in_order_of_submission(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=1)
    with engine.stream(PROMPTS, **ARGUMENTS) as stream:
        order = [event.row for event in stream if isinstance(event, Finished)]
    assert order == list(range(24))


def test_an_event_comes_before_the_next_step_is_computed(tokenizer):
    model, calls = make_model(), []
    engine = RolloutEngine(model, tokenizer)
    model.register_forward_hook(lambda *_: calls.append(0))
    with engine.stream(["ab<think>"], Budget(4, 2), sampling=HOT) as stream:
        calls.clear()  # the slots were measured by one
        for count in range(1, 4):
            assert isinstance(next(stream), Token)
            assert len(calls) == count  # the prefill, then one step a token


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_thinking_ends_when_it_is_asked_to(tokenizer, cut):
    engine, budget = RolloutEngine(never_ending(), tokenizer, max_rows=1), Budget(20, 3)
    with engine.stream(["ab<think>", "c<think>"], budget, sampling=HOT) as stream:
        if cut == 0:
            stream.end_thinking(1)  # which waits
        seen = 0
        for event in stream:
            seen += isinstance(event, Token) and event.row == 1
            if seen == cut and isinstance(event, Token):
                stream.end_thinking(1)
                stream.end_thinking(1)  # twice is once
    batch = stream.batch
    assert batch.thinking_tokens.tolist() == [20, cut]
    assert batch.ended_at.tolist() == [-1, cut]
    assert batch.thinking_cut.tolist() == [True, True]
    assert_replayed(batch, budget)


def test_a_solution_goes_on_when_its_thinking_is_asked_to_end(tokenizer):
    engine = RolloutEngine(never_ending(), tokenizer)
    with engine.stream(["a<think>b</think>"], Budget(5, 5), sampling=HOT) as stream:
        next(stream)
        stream.end_thinking(0)
        list(stream)
    assert stream.batch.lengths.tolist() == [5]
    assert stream.batch.ended_at.tolist() == [-1]


def test_cancelled_rows_keep_their_tokens_and_say_so(tokenizer):
    engine, budget = RolloutEngine(never_ending(), tokenizer, max_rows=3), Budget(9, 5)
    prompts = [f"{c}<think>" for c in "abcdef"]
    expected = engine.generate(prompts, budget, sampling=HOT)
    seen = dict.fromkeys(range(6), 0)
    records = {}
    with engine.stream(prompts, budget, sampling=HOT) as stream:
        stream.cancel(5)  # in the queue
        for event in stream:
            if isinstance(event, Finished):
                records[event.row] = event.record
                continue
            seen[event.row] += 1
            if (event.row, seen[event.row]) in ((1, 4), (2, 12)):
                stream.cancel(event.row)
                stream.cancel(event.row)
    batch = stream.batch
    assert batch.lengths.tolist() == [15, 4, 12, 15, 15, 0]
    reasons = [FinishReason(reason).text for reason in batch.finish_reason.tolist()]
    full = "solution_budget"
    assert reasons == [full, "cancelled", "cancelled", full, full, "cancelled"]
    assert batch.thinking_tokens.tolist() == [9, 4, 9, 9, 9, 0]
    assert batch.solution_tokens.tolist() == [5, 0, 2, 5, 5, 0]
    for row, length in enumerate(batch.lengths.tolist()):
        assert batch.tokens[row, :length].tolist() == expected.tokens[row, :length].tolist()
        assert (batch.source[row, length:] == Source.PAD).all()
        assert_same_batch(records[row], batch[row])
    assert batch.text(5) == ""
    assert_replayed(batch, budget)


def test_a_cancelled_row_gives_its_slot_away_at_once(tokenizer):
    engine = RolloutEngine(never_ending(), tokenizer, max_rows=1)
    events = []
    with engine.stream(["a<think>", "b<think>"], Budget(9, 9), sampling=HOT) as stream:
        for event in stream:
            events.append(event.row)
            if len(events) == 2:
                stream.cancel(0)
    assert events[:4] == [0, 0, 1, 0]  # the next step is row 1's, behind whose token row 0's end comes


def test_rows_that_are_all_cancelled_before_the_first_step_are_empty(engine, recwarn):
    with engine.stream(["ab<think>", "c"], Budget(5, 5), sampling=HOT, thinking_used=[3, 0]) as stream:
        for row in (0, 1):
            stream.cancel(row)
        events = list(stream)
    assert [type(event) for event in events] == [Finished, Finished]
    batch = stream.batch
    assert batch.tokens.shape == (2, 0)
    assert batch.thinking_tokens.tolist() == [3, 0]
    assert batch.finish_reason.tolist() == [FinishReason.CANCELLED] * 2
    assert_replayed(batch, Budget(5, 5))
    assert not [w for w in recwarn if "thinking budget did nothing" in str(w.message)]


def test_wrong_calls_are_named(engine):
    stream = engine.stream(["ab<think>", "c<think>"], Budget(2, 2), sampling=HOT)
    with pytest.raises(RuntimeError, match=r"cancel: not entered; write with engine.stream\(...\) as stream"):
        stream.cancel(0)
    with pytest.raises(RuntimeError, match=r"stream: not entered; write with engine.stream"):
        next(stream)
    with stream:
        with pytest.raises(IndexError, match=r"row: expected -2 .. 1, got 2"):
            stream.end_thinking(2)
        with pytest.raises(TypeError, match="row: expected an integer, got 'a'"):
            stream.cancel("a")
        with pytest.raises(RuntimeError, match=r"stream.batch: rows are still running"):
            stream.batch  # noqa: B018
        with pytest.raises(RuntimeError, match="`async for` goes with `async with`"):
            stream.__anext__().send(None)
        for event in stream:
            if isinstance(event, Finished):
                with pytest.raises(ValueError, match=f"cancel: row {event.row} has finished"):
                    stream.cancel(event.row)
                with pytest.raises(ValueError, match=f"end_thinking: row {event.row} has finished"):
                    stream.end_thinking(event.row)
        assert list(stream) == []
    assert len(stream.batch) == 2
    with pytest.raises(RuntimeError, match="stream: it is closed"):
        next(stream)
    with pytest.raises(RuntimeError, match="stream: it was entered before"):
        stream.__enter__()
    with engine.stream(["ab<think>"], Budget(2, 2)) as early:
        next(early)
    with pytest.raises(RuntimeError, match="cancel: the stream is closed"):
        early.cancel(0)
    with pytest.raises(RuntimeError, match=r"stream.batch: rows are still running"):
        early.batch  # noqa: B018
    with pytest.raises(ValueError, match="samples_per_prompt: expected 1 or more, got 0"):
        engine.stream(["a"], samples_per_prompt=0)  # before it is entered


def leave_by_break(stream: Stream) -> None:
    with stream:
        for _ in stream:
            break


def leave_by_error(stream: Stream) -> None:
    def fail() -> None:
        with stream:
            next(stream)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def leave_by_close(stream: Stream) -> None:
    with stream:
        next(stream)
        stream.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_close])
def test_leaving_early_gives_model_and_cache_back(tokenizer, leave):
    model = make_model().train()
    model.model.layers[1].eval()
    model.config._attn_implementation = "flash_attention_2"
    modes = [module.training for module in model.modules()]
    engine = RolloutEngine(model, tokenizer)
    stream = engine.stream(["ab<think>"], Budget(9, 9))
    caches = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: caches.append(weakref.ref(kwargs[CACHE_ARGUMENT])), with_kwargs=True
    )
    leave(stream)
    hook.remove()
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "flash_attention_2"
    gc.collect()
    assert [cache() for cache in caches] == [None] * len(caches)
    other = threading.Thread(target=engine.generate, args=(["ab<think>"], Budget(2, 2)), daemon=True)
    other.start()
    other.join(60)
    assert not other.is_alive()  # which it would be, waiting for the model


def test_the_caller_is_not_in_inference_mode_and_may_call_again(engine):
    expected = engine.generate(["ab<think>"], Budget(4, 3), sampling=HOT)
    with engine.stream(["ab<think>"], Budget(4, 3), sampling=HOT) as stream:
        for _ in stream:
            assert not torch.is_inference_mode_enabled()
            (torch.ones(1, requires_grad=True) * 2).backward()
            inner = engine.generate(["ab<think>"], Budget(4, 3), sampling=HOT)
            assert torch.equal(inner.tokens, expected.tokens)
    assert torch.equal(stream.batch.tokens, expected.tokens)
    (stream.batch.logprobs * torch.ones(1, requires_grad=True)).sum().backward()  # an ordinary tensor


def test_a_step_that_fails_closes_the_stream(tokenizer):
    model = make_model().train()
    with torch.no_grad():
        model.get_input_embeddings().weight[20] = float("nan")
    stream = RolloutEngine(model, tokenizer).stream([[20, 2]], Budget(3, 3))
    with stream:
        with pytest.raises(
            RuntimeError, match=r"row 0 \(prompt 0\): the model's logits of its token 0 hold NaN"
        ):
            list(stream)
        assert model.training
        with pytest.raises(RuntimeError, match="stream: it is closed"):
            next(stream)


def test_a_stop_string_is_held_back_until_it_is_none(tokenizer):
    tokenizer = byte_tokenizer()
    engine = scripted_engine(tokenizer)
    script = tokenizer.encode("t</think>a.b.c.!d", add_special_tokens=False)
    engine.model.script = {2 + column: token for column, token in enumerate(script)}
    with engine.stream(["q<think>"], Budget(9, 30), sampling=Sampling(temperature=0), stop=[".!"]) as stream:
        texts = [event.text for event in stream if isinstance(event, Token)]
    assert texts == ["t", "</think>", "a", "", ".b", "", ".c", "", ""]
    assert stream.batch.text(0) == "".join(texts)
    assert stream.batch.finish_reason.tolist() == [FinishReason.STOP]
    # At the end of a row it is none either.
    with engine.stream(["q<think>"], Budget(9, 2), sampling=Sampling(temperature=0), stop=[".!"]) as stream:
        texts = [event.text for event in stream if isinstance(event, Token)]
    assert texts == ["t", "</think>", "a", "."]
