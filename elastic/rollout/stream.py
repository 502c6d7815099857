"""A call of the engine that is followed: its tokens as they come, rows that can be ended from outside."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from elastic.rollout.call import Call
from elastic.rollout.decode import Decoder
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.record.indices import row_index
from elastic.rollout.watch import Step, Token

T = TypeVar("T")


class Finished(NamedTuple):
    """A row that emits nothing more.

    Attributes:
        row: index of the row in the batch.
        record: a batch of this row alone, as `stream.batch[row]` gives it later.
    """

    row: int
    record: RolloutBatch


class Stream:
    """Iterates over `Token` and `Finished` of a running call; made by `RolloutEngine.stream`.

    Tokens come step by step, those of a step by slot; a row's `Finished` comes behind its last token. As a
    context manager it has the model for itself, as every call of the engine: other threads wait until the
    `with` is left, early or late, which also gives the model back as it was. The cache goes when the last row
    has ended. Between two events nothing is computed.

    `async with` and `async for` run every step in one thread of the stream's own, which has the model
    meanwhile; the event loop goes on. A second stream of the same model waits for the first to be left.

    Args:
        call: what is followed. Without a watch there are no events.
    """

    def __init__(self, call: Call):
        self._call, self._rows, self._watch = call, len(call.plan.most), call.watch
        self._lending = ExitStack()
        self._computing: Callable[[], AbstractContextManager[None]] = nullcontext
        self._decoder: Decoder | None = None
        self._steps: Iterator[Step] = iter(())
        self._events: deque[Token | Finished] = deque()
        self._told: set[int] = set()  # rows whose end the caller has seen
        self._state, self._said = "new", False
        self._batch: RolloutBatch | None = None
        self._worker: ThreadPoolExecutor | None = None

    @property
    def batch(self) -> RolloutBatch:
        """All rows, in order of submission, as `generate` returns them.

        Raises:
            RuntimeError: not all rows have ended.
        """
        if self._batch is None:
            raise RuntimeError("stream.batch: rows are still running; iterate to the end, or cancel them")
        return self._batch

    def end_thinking(self, row: int) -> None:
        """Ends the thinking of a row (R22): its next tokens are the closing text, and it answers.

        A row that waits for a slot closes as soon as it would think; one that has come to its solution goes
        on as it is.

        Raises:
            IndexError: no such row.
            ValueError: its `Finished` has been seen.
            RuntimeError: the stream is not entered, or closed.
        """
        decoder, index = self._running("end_thinking", row)
        decoder.end_thinking(index)

    def cancel(self, row: int) -> None:
        """Ends a row with the tokens it has, finish reason CANCELLED; one that waits for a slot has none.

        Its `Finished` comes with the next step. A row that ended by itself meanwhile keeps its own reason.

        Raises:
            IndexError: no such row.
            ValueError: its `Finished` has been seen.
            RuntimeError: the stream is not entered, or closed.
        """
        decoder, index = self._running("cancel", row)
        decoder.cancel(index)

    def _running(self, name: str, row: int) -> tuple[Decoder, int]:
        if self._state == "new":
            raise RuntimeError(f"{name}: not entered; write with engine.stream(...) as stream")
        index = row_index(row, self._rows)
        if index in self._told:
            raise ValueError(f"{name}: row {index} has finished")
        if self._decoder is None:
            raise RuntimeError(f"{name}: the stream is closed")
        return self._decoder, index

    def close(self) -> None:
        """Gives the model back as it was; rows that have not ended are lost. Leaving the `with` does it."""
        self._state = "closed"
        self._decoder, self._steps = None, iter(())
        self._events.clear()
        self._lending.close()

    # In this thread

    def __enter__(self) -> Stream:
        if self._state != "new":
            raise RuntimeError("stream: it was entered before; ask the engine for another one")
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Token | Finished]:
        return self

    def __next__(self) -> Token | Finished:
        self._check_entered("with", in_worker=False)
        self._fill()
        if not self._events:
            self._say()
            raise StopIteration
        return self._take()

    def advance(self) -> Step | None:
        """One step, or None behind the last one: what the events are made of, without texts and records."""
        try:
            with self._computing():
                step = next(self._steps, None)
        except BaseException:
            self.close()
            raise
        if step is None and self._decoder is not None:
            self._batch = self._call.batch(self._decoder)
            self._decoder = None
        return step

    def _open(self) -> None:
        self._state = "open"
        with ExitStack() as entered:
            to = entered.enter_context(self._call.lend())
            self._computing = to.stepper.no_gradients
            with self._computing():
                self._decoder = self._call.begin(to)
            self._lending = entered.pop_all()
        self._steps = self._decoder.steps()

    def _fill(self) -> None:
        """Steps until there is an event, or nothing left."""
        while not self._events:
            step = self.advance()
            if step is None:
                return
            assert self._watch is not None  # a stream has events
            assert self._decoder is not None  # behind its last step it is gone
            self._events += self._watch.complete(step)
            self._events += [Finished(row, self._call.batch(self._decoder, [row])) for row in step.ended]

    def _take(self) -> Token | Finished:
        event = self._events.popleft()
        if isinstance(event, Finished):
            self._told.add(event.row)
        return event

    def remark(self) -> str | None:
        """A warning about the whole batch, the first time it is asked for; or None."""
        said, self._said = self._said, True
        return None if said or self._batch is None else self._call.remark(self._batch)

    def _say(self) -> None:
        message = self.remark()
        if message:
            warnings.warn(message, stacklevel=3)

    def _check_entered(self, statement: str, *, in_worker: bool) -> None:
        if self._state == "new":
            raise RuntimeError(f"stream: not entered; write {statement} engine.stream(...) as stream")
        if self._state == "closed":
            raise RuntimeError("stream: it is closed")
        if (self._worker is not None) != in_worker:
            raise RuntimeError("stream: `async for` goes with `async with`, and `for` with `with`")

    # In a thread of its own

    async def __aenter__(self) -> Stream:
        if self._state != "new":
            raise RuntimeError("stream: it was entered before; ask the engine for another one")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="elastic-stream")
        try:
            await self._in_worker(self._open)
        except BaseException:
            self._leave(self._worker)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        await asyncio.shield(asyncio.wrap_future(self._leave(self._worker)))

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Token | Finished:
        self._check_entered("async with", in_worker=True)
        if not self._events:
            await self._in_worker(self._fill)
        if not self._events:
            self._say()
            raise StopAsyncIteration
        return self._take()

    async def _in_worker(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def _leave(self, worker: ThreadPoolExecutor) -> Any:
        """Closes in the thread that opened: behind a step in progress, whatever becomes of the waiting."""
        left = worker.submit(self.close)
        worker.shutdown(wait=False)
        return left
