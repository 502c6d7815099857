"""Several cuts of one thought are what separate calls under these budgets would have made."""

import pytest
import torch

from elastic import Budget, FinishReason, Phase, RolloutBatch, RolloutEngine, Sampling, Source
from elastic.rollout.cuts import cut_thoughts, solutions_behind_cuts
from elastic.rollout.record.measure import measure
from elastic.rollout.resume import resume
from tests.rollout.calls import FIELDS, HOT, PROMPTS, assert_replayed, assert_same, mixed_budgets
from tests.rollout.scripted import TOOLS, byte_tokenizer, play, scripted_engine
from tests.rollout.small_models import biased, make_model

LIMITS = [0, 1, 3, 8, 15, 30]


def assert_equal(got: RolloutBatch, expected: RolloutBatch) -> None:
    assert_same(got, expected, [*FIELDS, "initial_phase", "initial_thinking", "ended_at"])
    assert got.prompts == expected.prompts
    torch.testing.assert_close(got.logprobs, expected.logprobs, atol=5e-6, rtol=0)
    torch.testing.assert_close(got.full_logprobs, expected.full_logprobs, atol=5e-6, rtol=0)
    assert [got.solution(row) for row in range(len(got))] == [expected.solution(r) for r in range(len(got))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"closing": "qq</think>\n"},
        {"closing": "\n</think>\nso"},
        {"grace": 4, "boundary": ("a", "e")},
        {"notices": ((5, "mind"), (9, "x"))},
        {"on_eos": "stop"},
        {"on_reopen": "forbid", "on_reclose": "forbid"},
        {"whole_characters": True},
    ],
)
def test_each_cut_is_the_row_that_its_budget_makes(model, tokenizer, options):
    engine = RolloutEngine(model, tokenizer, max_rows=7)
    kept = {name: value for name, value in options.items() if name in ("notices", "on_eos")}
    thoughts = engine.generate(PROMPTS, Budget(60, 4, **kept), 4, HOT)
    limits = [limit for limit in LIMITS if limit > 9] if "notices" in options else LIMITS
    budgets = [Budget(limit, 9, **options) for limit in limits]
    found = solutions_behind_cuts(engine, thoughts, budgets, sampling=HOT)
    for budget, batch in zip(budgets, found, strict=True):
        expected = engine.generate(PROMPTS, budget, 4, HOT, seeds=thoughts.seeds)
        assert_equal(batch, expected)
        assert_replayed(batch, budget)
        assert torch.equal(measure(batch).thinking_cut, measure(expected).thinking_cut)
    assert any(bool(batch.thinking_cut.any()) for batch in found)


def test_minimum_and_extensions_hold_in_a_cut_thought(tokenizer):
    model = biased(0, 3, 3.0)  # likes to end its thought
    engine, options = (
        RolloutEngine(model, tokenizer),
        {"min_thinking": 6, "max_extensions": 2, "extension": "w"},
    )
    thoughts = engine.generate(PROMPTS, Budget(40, 4, **options), 4, HOT)
    assert bool((thoughts.phase == Phase.NOTICE).any())
    budgets = [Budget(limit, 9, **options) for limit in (6, 8, 12)]
    for budget, batch in zip(
        budgets, solutions_behind_cuts(engine, thoughts, budgets, sampling=HOT), strict=True
    ):
        assert_equal(batch, engine.generate(PROMPTS, budget, 4, HOT, seeds=thoughts.seeds))


def test_hard_caps_and_other_solution_budgets_are_cuts_too(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    thoughts = engine.generate(PROMPTS, Budget(None, 4, on_eos="stop"), 4, HOT, max_new_tokens=120)
    budgets = [Budget.vanilla(2), Budget.vanilla(11), Budget(7, None, 12, on_eos="stop")]
    found = solutions_behind_cuts(engine, thoughts, budgets, sampling=HOT)
    for budget, batch in zip(budgets, found, strict=True):
        assert_equal(batch, engine.generate(PROMPTS, budget, 4, HOT, seeds=thoughts.seeds))
    assert bool((found[0].finish_reason == FinishReason.TOTAL_BUDGET).any())


def test_a_thought_without_a_limit_ends_with_max_new_tokens_and_is_cut_all_the_same(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    thoughts = engine.generate(PROMPTS, Budget(None, 1), 4, HOT, max_new_tokens=60)
    assert bool((thoughts.finish_reason == FinishReason.LENGTH).any())
    cut, whole = solutions_behind_cuts(
        engine, thoughts, [Budget(6, 9), Budget(None, 9)], sampling=HOT, max_new_tokens=60
    )
    for batch, budget, limit in [(cut, Budget(6, 9), None), (whole, Budget(None, 9), 60)]:
        expected = engine.generate(PROMPTS, budget, 4, HOT, max_new_tokens=limit, seeds=thoughts.seeds)
        assert_equal(batch, expected)


def test_a_cut_inside_a_marker_of_several_tokens_forces_its_rest():
    tokenizer = byte_tokenizer(special=())
    engine = scripted_engine(tokenizer)
    thoughts = play(engine, "<think>", "abc</think>xyz", Budget(50, 9))
    for limit, text in [(2, "ab</think>"), (5, "abc</think>"), (9, "abc</think>"), (11, "abc</think>")]:
        (batch,) = solutions_behind_cuts(engine, thoughts, [Budget(limit, 3)], sampling=Sampling(0))
        assert batch.text(0).startswith(text)
        expected = play(engine, "<think>", "abc</think>xyz", Budget(limit, 3))
        assert torch.equal(batch.source[:, : len(text)], expected.source[:, : len(text)])
        assert torch.equal(batch.thinking_tokens, expected.thinking_tokens)
        assert_replayed(batch, Budget(limit, 3))


def test_a_cut_waits_for_the_end_of_a_character():
    engine = scripted_engine(byte_tokenizer())
    thoughts = play(engine, "<think>", "a\u20acb</think>x", Budget(50, 9))
    (batch,) = solutions_behind_cuts(
        engine, thoughts, [Budget(2, 3, whole_characters=True)], sampling=Sampling(0)
    )
    assert batch.thinking(0) == "a\u20ac"
    assert batch.thinking_tokens.tolist() == [4]


def test_a_thought_that_ended_in_a_tool_call_keeps_it():
    engine = scripted_engine(byte_tokenizer((*TOOLS, "<think>", "</think>")))
    thoughts = play(engine, "<think>", "ab<tool_call>cd", Budget(50, 9))
    (batch,) = solutions_behind_cuts(engine, thoughts, [Budget(9, 3)], sampling=Sampling(0))
    assert (batch.thinking(0), batch.solution(0)) == ("ab", "<tool_call>cd")
    assert batch.solution_tokens.tolist() == [3]


def test_a_thought_ended_from_outside_keeps_its_end(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    with engine.stream(["a<think>"], Budget(60, 4), sampling=HOT, seeds=[5]) as stream:
        stream.end_thinking(0)
        list(stream)
    early, late = solutions_behind_cuts(
        engine, stream.batch, [Budget(0, 4), Budget(9, 4, closing="q</think>")], sampling=HOT
    )
    assert early.thinking_tokens.tolist() == late.thinking_tokens.tolist() == [0]
    assert late.tokens[0, :2].tolist() == tokenizer.encode("q</think>")
    assert late.ended_at.tolist() == [0]
    assert_replayed(late, Budget(9, 4, closing="q</think>"))


def test_samples_share_the_thought_and_have_seeds_of_their_own(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    thoughts = engine.generate(PROMPTS[:2], Budget(30, 1), 2, HOT)
    first, second = solutions_behind_cuts(
        engine, thoughts, [Budget(4, 12), Budget(9, 12)], samples_per_cut=3, sampling=HOT
    )
    assert first.prompt_index.tolist() == [0] * 6 + [1] * 6
    assert torch.equal(first.seeds, second.seeds)
    assert first.seeds[::3].tolist() == thoughts.seeds.tolist()
    assert len(set(first.seeds.tolist())) == 12
    for batch in (first, second):
        for row in range(0, 12, 3):
            assert len({batch.thinking(row + sample) for sample in range(3)}) == 1
            assert len({tuple(batch.tokens[row + sample].tolist()) for sample in range(3)}) > 1
    alone = solutions_behind_cuts(
        engine, thoughts[2], [Budget(9, 12)], sampling=HOT, seeds=second.seeds[7:8]
    )[0]
    assert_same(alone, second[7], ["tokens", "source", "phase", "lengths"])


def test_solutions_behind_whole_thoughts_are_drawn_once_and_a_thought_is_prefilled_once(tokenizer):
    engine = RolloutEngine(biased(0, 3, 2.0), tokenizer)
    thoughts = engine.generate(["a<think>"], Budget(30, 1), 16, HOT)
    whole = int((thoughts.thinking_tokens < 8).sum())
    assert 0 < whole < 16
    shapes = []
    hook = engine.model.model.register_forward_hook(lambda module, args, out: shapes.append(out[0].shape[:2]))
    budgets = [Budget(limit, 6) for limit in (8, 10, 12)]
    found = solutions_behind_cuts(engine, thoughts, budgets, sampling=HOT)
    hook.remove()
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert [shape[0] for shape in prefills] == [16]  # one row for each thought, whatever its cuts
    first_step = next(shape for shape in shapes if shape[1] == 1)
    drawn = {
        (row, int(batch.thinking_tokens[row]), bool(batch.thinking_cut[row]))
        for batch in found
        for row in range(16)
    }
    assert first_step[0] == len(drawn) < 48
    for batch, budget in zip(found, budgets, strict=True):
        assert_equal(batch, engine.generate(["a<think>"], budget, 16, HOT, seeds=thoughts.seeds))


def test_thoughts_of_one_model_and_solutions_of_another(tokenizer):
    one, other = (RolloutEngine(make_model(seed=seed), tokenizer) for seed in (0, 1))
    budget = Budget(6, 10)
    thoughts = one.generate(PROMPTS, Budget(40, 10), 2, HOT)
    own = one.generate(PROMPTS, budget, 2, HOT, seeds=thoughts.seeds)
    (swapped,) = solutions_behind_cuts(other, thoughts, [budget], sampling=HOT)
    thinking = own.phase < Phase.SOLUTION
    width = min(own.tokens.shape[1], swapped.tokens.shape[1])
    same = (own.tokens[:, :width] == swapped.tokens[:, :width]) | ~thinking[:, :width]
    rows = [row for row in range(len(own)) if bool(thinking[row].any())]
    assert bool(same[rows].all())
    assert [swapped.thinking(row) for row in rows] == [own.thinking(row) for row in rows]
    assert [swapped.solution(row) for row in rows] != [own.solution(row) for row in rows]
    # The other model's solution behind this thought is what it goes on with in its own words.
    row = rows[0]
    history = swapped.prompt(row) + swapped.tokens[row, : int(thinking[row].sum())].tolist()
    sampled = (swapped.source[row] == Source.SAMPLED) & (swapped.phase[row] == Phase.SOLUTION)
    greedy = other.generate([history], Budget(6, 10), sampling=Sampling(0), phase="solution")
    (by_cut,) = solutions_behind_cuts(other, thoughts[row], [budget], sampling=Sampling(0))
    assert by_cut.solution(0) == greedy.text(0)
    assert int(sampled.sum()) == int(swapped.solution_tokens[row])


@pytest.mark.parametrize("begun", [0, 1, 7, 25])
def test_a_row_resumed_anywhere_becomes_the_row_of_one_go(model, tokenizer, begun):
    engine = RolloutEngine(model, tokenizer, max_rows=9)
    budgets = mixed_budgets(24)
    expected = engine.generate(PROMPTS, budgets, 4, HOT, max_new_tokens=90)
    kept = expected.lengths.clamp(max=begun)
    there = torch.arange(expected.tokens.shape[1]) < kept[:, None]
    start = RolloutBatch(
        **vars(expected)
        | {
            "lengths": kept,
            "tokens": expected.tokens * there,
            "source": expected.source.where(there, Source.PAD),
        }
    )
    got = resume(engine, start, budgets, sampling=HOT, max_new_tokens=90)
    assert_same(got, expected, ["tokens", "source", "lengths", "thinking_tokens", "solution_tokens", "seeds"])


def test_mistakes_are_named(model, tokenizer):
    engine = RolloutEngine(model, tokenizer)
    thoughts = engine.generate(["a<think>"], Budget(3, 2), 2, HOT, seeds=[1, 2])
    with pytest.raises(ValueError, match="budgets: expected a list of at least one Budget, got"):
        solutions_behind_cuts(engine, thoughts, [])
    with pytest.raises(ValueError, match="samples_per_cut: expected an integer from 1, got 0"):
        solutions_behind_cuts(engine, thoughts, [Budget(1, 1)], samples_per_cut=0)
    with pytest.raises(ValueError, match=r"seeds: expected 2, got shape \[1\]"):
        solutions_behind_cuts(engine, thoughts, [Budget(1, 1)], seeds=[1])
    open_ended = engine.generate(["a<think>"], Budget(None, None), 1, HOT, max_new_tokens=4, seeds=[3])
    with pytest.raises(
        ValueError, match="thoughts: row 0 has 4 thinking tokens; expected a thought that has"
    ):
        cut_thoughts(open_ended, Budget(9, 1))
    with pytest.raises(ValueError, match="rows: made with eos_ids"):
        solutions_behind_cuts(RolloutEngine(model, tokenizer, eos_ids=()), thoughts, [Budget(1, 1)])
    with pytest.raises(ValueError, match="rows: made with other markers"):
        solutions_behind_cuts(scripted_engine(byte_tokenizer()), thoughts, [Budget(1, 1)])
    with pytest.raises(ValueError, match=r"rows: row 0, position 2: no row under Budget\(2, 2\) emits"):
        resume(engine, thoughts, Budget(2, 2))
    with pytest.raises(ValueError, match="rows: expected at least one, got an empty batch"):
        resume(engine, thoughts[[]], Budget(3, 2))
    with pytest.raises(ValueError, match="max_new_tokens: expected at least 4, the tokens that row 0 has"):
        resume(engine, open_ended, Budget.unlimited(), max_new_tokens=3)
