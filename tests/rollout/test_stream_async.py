"""`async for` over a stream: the event loop goes on, and the model is entered and left by one thread."""

import asyncio
import threading

import pytest
import torch

from elastic import Budget, FinishReason, RolloutEngine, Sampling
from elastic.models.serving import exclusive
from elastic.rollout import Finished, Token
from tests.rollout.small_models import make_model

PROMPTS, BUDGET, HOT = (
    ["ab1+2=<think>", "c<think>", "zz<think>"],
    Budget(9, 5),
    Sampling(temperature=1.0, seed=3),
)


def lock_is_free(model: torch.nn.Module) -> bool:
    """Whether another thread gets the model."""
    entered = threading.Event()

    def enter() -> None:
        with exclusive(model):
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered.wait(20)


def test_events_are_those_of_the_same_stream_without_async(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=2)
    with engine.stream(PROMPTS, BUDGET, 2, HOT) as stream:
        expected = [event for event in stream if isinstance(event, Token)]

    async def follow() -> tuple[list[Token], int]:
        tokens, others = [], 0

        async def other() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(0)
                others += 1

        task = asyncio.create_task(other())
        async with engine.stream(PROMPTS, BUDGET, 2, HOT) as stream:
            async for event in stream:
                if isinstance(event, Token):
                    tokens.append(event)
        task.cancel()
        assert len(stream.batch) == 6
        return tokens, others

    tokens, others = asyncio.run(follow())
    assert tokens == expected
    assert others > len(tokens) // 6  # the loop went on while steps ran


def test_every_step_runs_in_one_thread_that_is_not_the_loops(tokenizer):
    model, threads = make_model(), set()
    engine = RolloutEngine(model, tokenizer)
    model.register_forward_hook(lambda *_: threads.add(threading.get_ident()))

    async def follow() -> None:
        async with engine.stream(["ab<think>"], BUDGET, sampling=HOT) as stream:
            async for event in stream:
                if isinstance(event, Token):
                    stream.end_thinking(0)
        assert stream.batch.thinking_tokens.tolist() == [1]

    asyncio.run(follow())
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert lock_is_free(model)


def test_rows_are_cancelled_from_another_task(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)

    async def follow() -> list[str]:
        async with engine.stream(PROMPTS, Budget(90, 90), sampling=HOT) as stream:
            task = None
            async for event in stream:
                if task is None:

                    async def cancel_all() -> None:
                        for row in range(3):
                            stream.cancel(row)

                    task = asyncio.create_task(cancel_all())
                    await task
                elif isinstance(event, Finished):
                    assert int(event.record.lengths[0]) == 1
        return [FinishReason(reason).text for reason in stream.batch.finish_reason.tolist()]

    assert asyncio.run(follow()) == ["cancelled"] * 3


def test_a_task_that_is_cancelled_gives_the_model_back(tokenizer):
    model = make_model().train()
    engine = RolloutEngine(model, tokenizer)

    async def follow(running: asyncio.Event) -> None:
        async with engine.stream(["ab<think>"], Budget(90, 90)) as stream:
            async for _ in stream:
                running.set()

    async def main() -> None:
        running = asyncio.Event()
        task = asyncio.create_task(follow(running))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert lock_is_free(model)
    assert model.training


def test_a_task_that_is_cancelled_while_it_waits_for_the_model_leaves_it_free(tokenizer):
    model = make_model().train()
    engine = RolloutEngine(model, tokenizer)

    async def follow(begun: asyncio.Event) -> None:
        begun.set()
        async with engine.stream(["ab<think>"], BUDGET):
            raise AssertionError

    async def main() -> None:
        begun = asyncio.Event()
        with exclusive(model):
            task = asyncio.create_task(follow(begun))
            await begun.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert lock_is_free(model)
    assert model.training


def test_an_error_of_a_step_reaches_the_loop_and_closes_the_stream(tokenizer):
    model = make_model().train()
    with torch.no_grad():
        model.get_input_embeddings().weight[20] = float("nan")
    engine = RolloutEngine(model, tokenizer)

    async def follow() -> None:
        async with engine.stream([[20, 2]], Budget(3, 3)) as stream:
            with pytest.raises(RuntimeError, match=r"row 0 \(prompt 0\): the model's logits"):
                async for _ in stream:
                    pass

    asyncio.run(follow())
    assert lock_is_free(model)
    assert model.training


def test_each_kind_of_for_goes_with_its_kind_of_with(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)

    async def follow() -> None:
        async with engine.stream(["ab<think>"], BUDGET) as stream:
            with pytest.raises(RuntimeError, match=r"`async for` goes with .*, and `for` with `with`"):
                next(stream)
        message = "`async for` goes with `async with`"
        with engine.stream(["ab<think>"], BUDGET) as stream, pytest.raises(RuntimeError, match=message):
            await anext(stream)
        with pytest.raises(RuntimeError, match=r"stream: not entered; write async with engine\.stream"):
            await anext(engine.stream(["ab<think>"], BUDGET))

    asyncio.run(follow())
