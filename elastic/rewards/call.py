"""Calls of reward functions over the samples of a batch, and checks of what they give.

Import it by its full name: as `elastic.rewards.grading`, it needs the rollout record.
"""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from elastic.rewards.functions import ANSWER, LISTS, Asked
from elastic.rewards.sample import Sample

T = TypeVar("T")

Values = list[float | None]


class Function(NamedTuple):
    """A reward function, ready to be called.

    Attributes:
        name: in metrics and messages.
        call: the function.
        asked: see there.
    """

    name: str
    call: Callable[..., Any]
    asked: Asked


class Given(NamedTuple):
    """What a function said: one value for each row, and the seconds that this took."""

    values: Values
    seconds: float


class EventLoop:
    """The loop that async reward functions run in, on a thread of its own that is started when one is needed.

    One loop for the whole run, since clients (aiohttp, httpx) keep connections of the loop they began in; on
    another thread, since the caller may run in a loop itself, as notebooks do.
    """

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="async rewards", daemon=True).start()
        return loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; an interruption of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # of no effect on one that is done


def values_of(function: Function, samples: Sequence[Sample], *, messages: bool) -> Values:
    """What a plain function says of each sample.

    Args:
        function: not of kind ``response``, and not async.
        samples: R rows.
        messages: whether ``prompts`` and ``completions`` are chats, see `_lists`.

    Raises:
        RuntimeError: it failed; names function, row and problem.
        ValueError: it gave something other than one finite number or None for each row.
    """
    if function.asked.kind == "batch":
        with_names = _keywords(function.asked, samples, messages)
        return _checked(function.name, _called(function, samples, with_names), samples)
    return _checked(function.name, [_called(function, [s], {"sample": s}) for s in samples], samples)


async def all_values_of(
    functions: Sequence[Function], samples: Sequence[Sample], *, messages: bool, timeout_s: float | None
) -> list[Given]:
    """What async functions say of each sample: all calls of all functions are under way at once.

    Args:
        functions: async ones.
        samples: R rows.
        messages: see `values_of`.
        timeout_s: seconds for each call; None for no limit.

    Raises:
        RuntimeError, ValueError: as of `values_of`; a call that took too long has failed.
    """
    tasks = [asyncio.create_task(_awaited(f, samples, messages, timeout_s)) for f in functions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # where one failed, nobody waits for the others


async def _awaited(
    function: Function, samples: Sequence[Sample], messages: bool, timeout_s: float | None
) -> Given:
    start = time.perf_counter()
    if function.asked.kind == "batch":
        keywords = _keywords(function.asked, samples, messages)
        values = await _waited(function, samples, keywords, timeout_s)
    else:
        calls = [asyncio.create_task(_waited(function, [s], {"sample": s}, timeout_s)) for s in samples]
        try:
            values = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
    return Given(_checked(function.name, values, samples), time.perf_counter() - start)


async def _waited(
    function: Function, samples: Sequence[Sample], keywords: dict[str, Any], timeout_s: float | None
) -> Any:
    answer: Awaitable[Any] = _called(function, samples, keywords)
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except Exception as error:
        limit = f" (reward.async_timeout_s is {timeout_s:g})" if timeout_s is not None else ""
        late = limit if isinstance(error, asyncio.TimeoutError) else ""
        raise _failure(function, samples, f"{error!r}{late}") from error


def _called(function: Function, samples: Sequence[Sample], keywords: dict[str, Any]) -> Any:
    try:
        return function.call(**keywords)
    except Exception as error:
        raise _failure(function, samples, repr(error)) from error


def _failure(function: Function, samples: Sequence[Sample], what: str) -> RuntimeError:
    where = _place(samples[0]) if len(samples) == 1 else f"a batch of {len(samples)} rows"
    return RuntimeError(f"reward function '{function.name}', {where}: {what}")


def _place(sample: Sample) -> str:
    return f"row {sample.row} (problem '{sample.problem.id}')"


def _keywords(asked: Asked, samples: Sequence[Sample], messages: bool) -> dict[str, Any]:
    """The lists that a function asks for: each has one entry for every row."""
    lists = LISTS if asked.everything else asked.lists
    names = {*asked.columns, *asked.optional}
    if asked.everything:
        names |= {ANSWER, *(name for sample in samples for name in sample.columns)} - set(LISTS)
    columns = {name: [column(sample, name) for sample in samples] for name in names if has(samples, name)}
    return columns | {name: _list(name, samples, messages) for name in lists}


def _list(name: str, samples: Sequence[Sample], messages: bool) -> list[Any]:
    """``prompts``, ``completions``, ``completion_ids`` or ``samples``.

    As chats, a prompt is the user's message with the problem as it stands in the data, and a completion the
    assistant's, as TRL has them for conversational data.
    """
    if name == "samples":
        return list(samples)
    if name == "completion_ids":
        return [sample.completion_ids for sample in samples]
    if name == "prompts":
        if messages:
            return [[{"role": "user", "content": sample.problem.prompt}] for sample in samples]
        return [sample.prompt for sample in samples]
    if messages:
        return [[{"role": "assistant", "content": sample.completion}] for sample in samples]
    return [sample.completion for sample in samples]


def has(samples: Sequence[Sample], name: str) -> bool:
    """Whether all samples have a column."""
    return name == ANSWER or all(name in sample.columns for sample in samples)


def column(sample: Sample, name: str) -> Any:
    """The value of a sample's column; the reference answer where it has no column ``answer``."""
    return sample.answer if name == ANSWER and name not in sample.columns else sample.columns[name]


def _checked(name: str, values: Any, samples: Sequence[Sample]) -> Values:
    """One finite number or None for each sample."""
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__len__"):
        raise ValueError(
            f"reward function '{name}': expected a list of {len(samples)} numbers, got {values!r:.80}"
        )
    if len(values) != len(samples):
        raise ValueError(f"reward function '{name}': gave {len(values)} values for {len(samples)} rows")
    return [_number(name, value, sample) for value, sample in zip(values, samples, strict=True)]


def _number(name: str, value: Any, sample: Sample) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"reward function '{name}': {_place(sample)} got {value!r:.80}, expected a finite number or None"
        )
    return number
