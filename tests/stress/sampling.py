"""Random calls of `sample`; tokens and states are the reference's, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elastic import reference
from elastic.budget import Phase
from tests.stress.call import Call, Expression, Fault, same
from tests.stress.draw import Draw, laid_out
from tests.stress.values import logits_of

INT32 = torch.int32


def sample(draw: Draw) -> None:
    rows, vocab = draw.randint(0, 6), draw.vocab()
    check_sample(draw, logits_of(draw, rows, vocab, dtype_of(draw)))


def dtype_of(draw: Draw) -> torch.dtype:
    return draw.pick(torch.float32, torch.bfloat16, torch.float16)


def check_sample(
    draw: Draw, logits: Tensor, state: Tensor | None = None, machine: Expression | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One call under random settings: tokens, source and the next state."""
    rows, vocab = logits.shape
    arguments: dict[str, Any] = {"logits": logits, **numbers_of(draw, rows)}
    settings = settings_of(draw, rows, vocab)
    arguments |= {name: joined(draw, name, values) for name, values in settings.items()}
    arguments["broken"] = torch.zeros(1, dtype=INT32)
    if draw.chance(0.5):
        arguments["most_kept"] = draw.pick(1, 7, vocab)
    if state is not None:
        arguments |= {"state": state, "machine": machine, "active": torch.full((1,), -1, dtype=INT32)}
    call = Call("sample", arguments)
    output, left = call.run()
    expected, after = by_rows(arguments, settings)
    for name in ("tokens", *(("source", "phase") if state is not None else ())):
        same(call, name, getattr(output, name), getattr(expected, name))
    if output.kept_ids is not None:
        check_kept(call, output, expected)
    for name in ("logprobs", "full_logprobs"):
        check_logprobs(call, name, getattr(output, name), getattr(expected, name))
    bad = expected.logprobs.isnan().nonzero()[:, 0].tolist()
    same(call, "broken", left["broken"], torch.tensor([bad[0] + 1 if bad else 0], dtype=INT32))
    same(call, "logits", left["logits"], logits)
    if after is not None:
        same(call, "state", left["state"], after)
        going_on = ((after[:, 1] & 15) != Phase.DONE).sum()
        same(call, "active", left["active"], going_on.to(INT32)[None])
    return output.tokens, output.source, after


def by_rows(
    arguments: dict[str, Any], settings: dict[str, list[Any]]
) -> tuple[reference.SampleOutput, Tensor | None]:
    """The reference, which takes one setting for all rows, row by row; and the states it leaves."""
    after = arguments["state"].clone() if "state" in arguments else None
    outs = []
    for row in range(len(arguments["logits"])):
        one = slice(row, row + 1)
        own: dict[str, Any] = {name: values[row] for name, values in settings.items()}
        own["most_kept"] = arguments.get("most_kept", 0)
        if after is not None:
            own |= {"state": after[one], "machine": arguments["machine"].value}
        given = (arguments[name][one] for name in ("logits", "seeds", "positions"))
        outs.append(reference.sample(*given, **own))
    if not outs:
        empty = torch.empty(0)
        ids, codes = empty.long(), empty.to(torch.uint8)
        return reference.SampleOutput(ids, empty, empty, codes, codes), after
    return reference.SampleOutput(
        *(None if x[0] is None else torch.cat(x) for x in zip(*outs, strict=True))
    ), after


def numbers_of(draw: Draw, rows: int) -> dict[str, Tensor]:
    """seeds and positions."""
    seeds = draw.integers(2**63 - 1, rows) * draw.pick(1, -1)
    positions = draw.integers(draw.pick(1, 1_000, 2**40), rows)
    return {"seeds": laid_out(draw, seeds), "positions": laid_out(draw, positions)}


def settings_of(draw: Draw, rows: int, vocab: int) -> dict[str, list[Any]]:
    """Each setting's value in each row; some are the same everywhere."""

    def many(values: Any) -> list[Any]:
        first = values()
        return [values() for _ in range(rows)] if draw.chance(0.3) else [first] * rows

    settings = {}
    if draw.chance(0.7):
        settings["temperature"] = many(lambda: draw.pick(0.0, 1.0, draw.uniform(0.3, 2), wide(draw)))
    if draw.chance(0.4):
        settings["top_k"] = many(lambda: draw.pick(0, 1, 2, 5, 40, vocab, 10**6))
    if draw.chance(0.4):
        settings["top_p"] = many(lambda: draw.pick(1.0, 0.95, 0.5, draw.uniform(1e-6, 1)))
    if draw.chance(0.4):
        settings["min_p"] = many(lambda: draw.pick(0.0, 0.05, 1.0, draw.random()))
    return settings


def wide(draw: Draw) -> float:
    return 10 ** draw.uniform(-3, 3)


def joined(draw: Draw, name: str, values: list[Any]) -> Any:
    """A number where one does for all rows, or a tensor."""
    if len(set(values)) == 1 and draw.chance(0.7):
        return values[0]
    dtype = torch.int64 if name == "top_k" else torch.float64
    return laid_out(draw, torch.tensor(values, dtype=dtype))


def check_kept(call: Call, output: reference.SampleOutput, expected: reference.SampleOutput) -> None:
    """As many ids in every row, and the same ones where they are listed."""
    assert output.kept_ids is not None
    assert output.kept_counts is not None
    if expected.kept_ids is None or expected.kept_counts is None:  # no rows
        return
    same(call, "kept_counts", output.kept_counts, expected.kept_counts)
    counts = expected.kept_counts[:, None]
    listed = (torch.arange(expected.kept_ids.shape[1]) < counts) & (counts <= expected.kept_ids.shape[1])
    same(call, "kept_ids", output.kept_ids[listed], expected.kept_ids[listed])


def check_logprobs(call: Call, name: str, got: Tensor, expected: Tensor) -> None:
    """Equal but for the last bit of one logarithm."""
    try:
        torch.testing.assert_close(got, expected, rtol=1.2e-7, atol=1e-12, equal_nan=True)
    except AssertionError as error:
        raise Fault(call, f"{name}: {error}") from None
