"""The decode bench: rows end where it says, every way is held to the others, and a figure is one step's."""

import sys
import warnings
from dataclasses import replace

import pytest
import torch

from bench.harness import compare, forwards, random_models
from bench.harness.compare import Timing
from bench.harness.device import Device
from bench.harness.run import run_case
from bench.ops import alike, decode, traffic
from bench.ops.decode import AT_ONCE, Steps
from bench.ops.engines import CAPTURED, COMPILED, UNCAPTURED, as_asked, engine_of
from bench.ops.rollout import MARKERS
from elastic import Sampling

CPU = Device("cpu")
NAMES = [
    "generate + budget processor",
    "elastic flash, uncaptured",
    *(f"elastic {attention}, captured" for attention in decode.ATTENTIONS),
    "elastic flash, compiled",
    "all but the model, uncaptured",
]


def stand_in(model, rows, attention, mode):
    """Has every attention and every mode, and is always the same engine."""
    return engine_of(model, rows, "sdpa", UNCAPTURED)


@pytest.mark.parametrize("tokens", [3, 11])
def test_rows_end_after_so_many_tokens_though_their_budget_fills_the_cache(tokens):
    steps = Steps(columns=64, few=3, many=11)
    job = decode.Job(CPU, decode.build(CPU, "micro"), 2, 64, engine_of)
    job.set_eos(AT_ONCE)
    budget = steps.budget(tokens)
    assert steps.prompt + budget.max_tokens(MARKERS) == 64
    batch = job.engine("sdpa", UNCAPTURED).generate([job.prompt(steps.prompt)], budget, 2, Sampling(seed=5))
    assert batch.lengths.tolist() == [tokens, tokens]


def test_every_way_is_checked_and_timed():
    case = decode.case(CPU, "micro", 2, 64, steps=8, compiled=True, make=stand_in)
    assert [variant.name for variant in case.variants] == NAMES
    outcome = run_case(case, CPU, rounds=1, bytes_per_ms=1e6)
    assert outcome.errors == []
    rows = {row["variant"]: row for row in outcome.rows}
    assert list(rows) == NAMES
    assert {row["steps"] for row in rows.values()} == {1}
    assert {row["items"] for row in rows.values()} == {2}
    assert (case.op, case.shape, case.dtype) == ("decode", "micro B=2 columns=64", "bfloat16")
    # All but the model was stepped uncaptured here, and is a share of what was stepped likewise.
    assert [name for name, row in rows.items() if row["outside"] is not None] == [
        name for name in NAMES if name.startswith("elastic") and name.endswith(UNCAPTURED)
    ]


@pytest.mark.parametrize(
    ("mode", "where"), [(CAPTURED, "embedded"), (CAPTURED, "timed"), (COMPILED, "timed")]
)
def test_a_way_that_gives_other_tokens_is_refused(mode, where):
    class Other:
        """An engine whose rows have other tokens."""

        def __init__(self, own):
            self.own, self.model = own, own.model

        def generate(self, *args, **kwargs):
            batch = self.own.generate(*args, **kwargs)
            return replace(batch, tokens=batch.tokens + 1)

    def make(model, rows, attention, way):
        if where == "timed" and model.dtype == torch.float32:
            raise ValueError("takes no float32")
        own = stand_in(model, rows, attention, way)
        return Other(own) if way == mode else own

    job = decode.Job(CPU, decode.build(CPU, "micro"), 2, 64, make)
    with pytest.raises(AssertionError, match=f"flash, {mode}: "):
        alike.hold(job, "flash", mode)


@pytest.mark.parametrize("mode", [CAPTURED, COMPILED])
def test_a_way_that_takes_no_float32_is_held_to_the_timed_model(mode):
    asked = []

    def make(model, rows, attention, way):
        if model.dtype == torch.float32:
            raise ValueError("takes no float32")
        asked.append(way)
        return stand_in(model, rows, attention, way)

    alike.hold(decode.Job(CPU, decode.build(CPU, "micro"), 2, 64, make), "flash", mode)
    assert asked == [UNCAPTURED if mode == CAPTURED else CAPTURED, mode]


def test_an_attention_that_is_not_there_is_skipped_with_its_own_reason():
    def make(model, rows, attention, mode):
        if attention == "flash":
            raise ValueError("flash-attn is not installed")
        return stand_in(model, rows, attention, mode)

    case = decode.case(CPU, "micro", 1, 64, steps=4, compiled=True, make=make)
    (skipped,) = [variant for variant in case.variants if variant.skip]
    assert (skipped.name, skipped.skip) == ("elastic flash", "flash-attn is not installed")
    assert "elastic flex, compiled" in {variant.name for variant in case.variants}
    own = decode.case(CPU, "micro", 1, 64, steps=4, compiled=True)
    assert {v.name: v.skip for v in own.variants}["elastic sdpa, captured"] == "needs CUDA graphs"


def test_an_engine_that_steps_otherwise_than_asked_is_no_figure(capsys):
    text = "decode steps are not captured in CUDA graphs: no memory"
    with pytest.raises(UserWarning, match="no memory"), as_asked():
        warnings.warn(text, stacklevel=1)
    with pytest.raises(RuntimeError, match="not compiled"), as_asked():
        print("elastic: decode steps are not compiled: no compiler", file=sys.stderr)
    with as_asked():
        print("elastic: compiling", file=sys.stderr)
    assert "elastic: compiling" in capsys.readouterr().err


def test_what_leads_up_to_the_job_is_timed_in_the_same_round_and_taken_off():
    calls, times = [], {"job": 50.0, "lead": 20.0}

    def clock(call):
        name = call()
        return times[name], times[name] / 10

    def run(name):
        return lambda number: calls.append((name, number)) or name

    timings = compare.compare([compare.Timed("a", run("job"), lead=run("lead"))], 2, 0, clock)
    assert timings == {"a": Timing([30.0, 30.0], [3.0, 3.0])}
    assert calls == [("job", 0), ("lead", 0), ("job", 1), ("lead", 1)]
    times["lead"] = 51.0  # noise
    assert (
        compare.compare([compare.Timed("a", run("job"), lead=run("lead"))], 1, 0, clock)["a"].wall_ms[0] > 0
    )


def test_a_step_must_read_every_weight_and_the_keys_and_values_that_are_there():
    model = random_models.build("micro", dtype=torch.bfloat16)
    # Embedding and head in one; queries, keys and values, output; three of the MLP; norms.
    attention = 32 * 32 + 2 * 16 * 32 + 32 * 32
    weights = 2 * (128 * 32 + attention + 3 * 32 * 64 + 2 * 32 + 2 * 16 + 32)
    assert traffic.weight_bytes(model) == weights
    token = 2 * 16 * 2  # keys and values, of one head of 16, of two bytes
    assert traffic.step_bytes(model, 3, 10) == weights + 30 * token
    # Two rows at a time have 5 tokens in 3 steps; columns read are 7 + 8 + 9, 4, and 0.
    assert traffic.call_bytes(model, 2, [7, 4, 9], [3, 1, 1]) == 3 * weights + (24 + 4 + 9) * token


def test_forwards_of_one_token_are_steps():
    model = random_models.build("micro")
    now = iter([1.0, 3.0, 10.0, 14.0])
    with forwards.watched(model, lambda: next(now)) as found:
        model(torch.zeros(2, 5, dtype=torch.int64))
        model(input_ids=torch.zeros(2, 1, dtype=torch.int64))
    assert found == forwards.Forwards(seconds=6.0, steps=1)
    model(torch.zeros(2, 1, dtype=torch.int64))
    assert found.steps == 1
