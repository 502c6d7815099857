"""What the engine emits: the same for every schedule, under every budget, and equal to plain decoding."""

import random

import pytest
import torch

import elastic.rollout.schedule.needs
from elastic import Budget, FinishReason, Phase, RolloutEngine, Sampling, Source
from tests.rollout.calls import FIELDS, HOT, PROMPTS, assert_replayed, assert_same, mixed_budgets
from tests.rollout.small_models import biased, make_model


@pytest.fixture(scope="module")
def expected(model, tokenizer):
    """48 rows one after the other, a batch of one."""
    return RolloutEngine(model, tokenizer, max_rows=1).generate(
        PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90
    )


@pytest.mark.parametrize(
    ("max_rows", "options"),
    [
        (4, {}),
        (16, {}),
        (48, {}),
        (64, {}),
        (16, {"refill_rows": 1}),
        (16, {"refill_rows": 16}),
        (16, {"refill_rows": 5}),
        (16, {"poll_every": 7}),
        (7, {"refill_rows": 2, "poll_every": 3}),
    ],
)
def test_a_row_is_the_same_for_any_number_of_slots_and_any_refill(
    model, tokenizer, expected, max_rows, options
):
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows, **options)
    batch = engine.generate(PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90)
    assert_same(batch, expected)
    torch.testing.assert_close(batch.logprobs, expected.logprobs, atol=2e-6, rtol=0)
    torch.testing.assert_close(batch.full_logprobs, expected.full_logprobs, atol=2e-6, rtol=0)


def test_a_row_is_the_same_when_looks_lag_behind_as_on_a_gpu(model, tokenizer, expected):
    engine = RolloutEngine(model, tokenizer, max_rows=5, poll_every=4)
    engine._lagged = True
    assert_same(engine.generate(PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90), expected)


def test_a_row_is_the_same_in_any_order_and_alone(model, tokenizer, expected):
    engine = RolloutEngine(model, tokenizer, max_rows=6)
    order = random.Random(1).sample(range(48), 48)
    prompts = [expected.prompt(row) for row in order]
    budgets, seeds = mixed_budgets(48), expected.seeds.tolist()
    batch = engine.generate(
        prompts,
        [budgets[row] for row in order],
        sampling=Sampling(temperature=1.0, seed=99),
        max_new_tokens=90,
        seeds=[seeds[row] for row in order],
    )
    per_row = [name for name in FIELDS if name != "prompt_index"]
    for place, row in enumerate(order):
        assert_same(batch[place], expected[row], per_row)
    alone = engine.generate(
        [prompts[0]], budgets[order[0]], sampling=HOT, max_new_tokens=90, seeds=[seeds[order[0]]]
    )
    assert_same(alone, expected[order[0]], per_row)


def test_rows_stand_in_order_of_submission(expected):
    assert expected.prompt_index.tolist() == [k for k in range(6) for _ in range(8)]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_replay_gives_the_batch_annotation_of_random_models_and_budgets(tokenizer, family, seed):
    budgets = mixed_budgets(24, seed)
    engine = RolloutEngine(make_model(family, seed=seed), tokenizer, max_rows=9)
    batch = engine.generate(PROMPTS, budgets, 4, Sampling(temperature=1.3, seed=seed), max_new_tokens=90)
    assert_replayed(batch, budgets)


@pytest.mark.parametrize("seed", range(4))
def test_budgets_are_never_exceeded(model, tokenizer, seed):
    budgets = mixed_budgets(48, seed)
    engine = RolloutEngine(model, tokenizer, max_rows=11)
    batch = engine.generate(PROMPTS, budgets, 8, Sampling(temperature=2.0, seed=seed), max_new_tokens=90)
    for row, budget in enumerate(budgets):
        phase = engine.markers.initial_phase(batch.prompt(row))
        most = budget.max_tokens(engine.markers, tokenizer, starts_in_thinking=phase != Phase.OPENING)
        assert int(batch.lengths[row]) <= (90 if most is None else most)
        if budget.max_thinking is not None:
            assert int(batch.thinking_tokens[row]) <= budget.max_thinking
        if budget.solution is not None:
            assert int(batch.solution_tokens[row]) <= budget.solution
        if budget.total is not None:
            assert int(batch.thinking_tokens[row] + batch.solution_tokens[row]) <= budget.total


def test_an_unlimited_row_ends_at_max_new_tokens_or_at_the_context(tokenizer):
    engine = RolloutEngine(biased(0, 1, -100.0, context=40), tokenizer)  # never EOS
    prompt = [10, 11, 2]
    greedy = Sampling(temperature=0.0)
    assert engine.generate([prompt], max_new_tokens=7, sampling=greedy).lengths.tolist() == [7]
    batch = engine.generate([prompt], sampling=greedy)
    assert batch.lengths.tolist() == [37]
    assert batch.finish_reason.tolist() == [FinishReason.LENGTH]


def test_cache_and_record_grow_for_rows_without_a_bound(tokenizer, monkeypatch):
    model = biased(0, 1, -100.0)

    def run(max_rows):
        return RolloutEngine(model, tokenizer, max_rows=max_rows).generate(
            ["abcdef<think>", "c<think>"], [Budget(None, None), Budget(9, 5)], 2, HOT, max_new_tokens=150
        )

    expected = run(4)
    assert expected.lengths[:2].tolist() == [150] * 2
    monkeypatch.setattr(elastic.rollout.schedule.needs, "FIRST_COLUMNS", 10)  # grows four times
    assert_same(run(4), expected)
    assert_same(run(1), expected)


def test_eos_as_the_first_token_closes_thinking_or_ends_the_row(tokenizer):
    model = biased(0, 1, 100.0)  # EOS always
    engine = RolloutEngine(model, tokenizer)
    closed = engine.generate(["ab<think>"], Budget(10, 10), sampling=HOT)
    assert closed.tokens.tolist() == [[3, 1]]
    assert closed.source.tolist() == [[Source.FORCED, Source.SAMPLED]]
    assert closed.logprobs[0, 0] == 0
    stopped = engine.generate(["ab<think>"], Budget(10, 10, on_eos="stop"), sampling=HOT)
    assert stopped.tokens.tolist() == [[1]]
    for batch in (closed, stopped):
        assert batch.finish_reason.tolist() == [FinishReason.STOP]
    answered = engine.generate(["ab<think></think>"], Budget(10, 10), sampling=HOT)
    assert (answered.tokens.tolist(), answered.solution_tokens.tolist()) == ([[1]], [1])
    assert answered.solution(0) == ""


def test_without_eos_ids_an_eos_is_a_token_like_any_other(tokenizer):
    engine = RolloutEngine(biased(0, 1, 100.0), tokenizer, eos_ids=())  # EOS always
    batch = engine.generate(["ab<think>", "ab<think></think>"], Budget(3, 2), sampling=HOT)
    assert batch.eos_ids == ()
    assert batch.tokens[0].tolist() == [1, 1, 1, 3, 1, 1]
    assert batch.finish_reason.tolist() == [FinishReason.SOLUTION_BUDGET] * 2
    assert_replayed(batch, Budget(3, 2))


def test_forced_tokens_are_marked_and_a_zero_budget_forces_at_once(tokenizer):
    engine = RolloutEngine(biased(0, 3, -100.0), tokenizer)  # never ends its thinking
    budgets = [Budget(0, 2, closing="time\n</think>ok"), Budget(3, 2, closing="time\n</think>ok")]
    batch = engine.generate(["ab<think>", "ab<think>"], budgets, sampling=HOT)
    forced = tokenizer.encode("time\n</think>ok")
    for row, thinking in enumerate((0, 3)):
        end = thinking + len(forced)
        assert batch.tokens[row, thinking:end].tolist() == forced
        assert batch.source[row, :thinking].tolist() == [Source.SAMPLED] * thinking
        assert batch.source[row, thinking:end].tolist() == [Source.FORCED] * len(forced)
        assert batch.phase[row, thinking:end].tolist() == [Phase.CLOSING] * 6 + [Phase.SOLUTION] * 2
        assert batch.thinking_cut[row]
        assert int(batch.thinking_tokens[row]) == thinking
        assert batch.thinking(row).endswith("time\n")
        assert batch.solution(row).startswith("ok")


def test_on_token_reports_every_token_of_the_record_in_order(model, tokenizer):
    seen: dict[int, list[tuple[int, int, int]]] = {}
    engine = RolloutEngine(model, tokenizer, max_rows=3, poll_every=5)
    batch = engine.generate(
        PROMPTS,
        mixed_budgets(12, 3),
        2,
        HOT,
        max_new_tokens=90,
        on_token=lambda row, token, phase, source: seen.setdefault(row, []).append((token, phase, source)),
    )
    for row in range(len(batch)):
        length = int(batch.lengths[row])
        columns = (batch.tokens[row], batch.phase[row], batch.source[row])
        assert seen[row] == list(zip(*(c[:length].tolist() for c in columns), strict=True))


def test_a_prompt_longer_than_the_budget_takes_nothing_from_it(tokenizer):
    engine = RolloutEngine(biased(0, 3, -100.0), tokenizer)  # never ends its thinking
    batch = engine.generate([[7] * 60 + [2]], Budget(3, 2), sampling=HOT)
    assert batch.thinking_tokens.tolist() == [3]
    assert batch.source[0, :4].tolist() == [Source.SAMPLED] * 3 + [Source.FORCED]


def test_padding_behind_a_row_says_so(expected):
    behind = torch.arange(expected.tokens.shape[1]) >= expected.lengths[:, None]
    assert behind.any()
    assert (expected.tokens[behind] == 0).all()
    assert (expected.source[behind] == Source.PAD).all()
    assert (expected.phase[behind] == Phase.DONE).all()
    assert not expected.logprobs[behind].any()
    assert (expected.source[~behind] != Source.PAD).all()


def test_a_progress_bar_is_shown_when_asked_for(model, tokenizer, capsys):
    engine = RolloutEngine(model, tokenizer, progress=True)
    engine.generate(["a<think>"], Budget(2, 2), 4)
    assert "4/4" in capsys.readouterr().err
    engine.generate(["a<think>"], Budget(2, 2), progress=False)
    RolloutEngine(model, tokenizer).generate(["a<think>"], Budget(2, 2))  # no terminal
    assert capsys.readouterr().err == ""


def test_the_model_comes_back_as_it_was(tokenizer):
    model = make_model().train()
    model.config._attn_implementation = "flash_attention_2"
    batch = RolloutEngine(model, tokenizer).generate(["a<think>"], Budget(2, 2))
    assert model.training
    assert model.config._attn_implementation == "flash_attention_2"
    assert not batch.logprobs.requires_grad
    (batch.logprobs * torch.ones(1, requires_grad=True)).sum().backward()  # an ordinary tensor


def test_a_model_trains_on_after_a_rollout(tokenizer):
    """Nothing that was made in inference mode stays behind in the model."""
    model = make_model("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    RolloutEngine(model, tokenizer).generate(["a<think>"], Budget(9, 9))
    model.train()(torch.arange(9)[None]).logits.sum().backward()
    assert model.lm_head.weight.grad.isfinite().all()


def test_bfloat16_models_decode_in_bfloat16(tokenizer):
    model = make_model(seed=1).bfloat16()
    batch = RolloutEngine(model, tokenizer, max_rows=4).generate(
        PROMPTS, mixed_budgets(6, 1), sampling=HOT, max_new_tokens=90
    )
    assert batch.logprobs.dtype == torch.float32
    assert batch.logprobs.isfinite().all()


@pytest.mark.parametrize("bad_row", [0, 3])
@pytest.mark.parametrize("poll_every", [1, 4])
def test_nan_logits_are_an_error_naming_row_and_prompt(tokenizer, bad_row, poll_every):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[20] = float("nan")
    prompts = [[10 + k, 2] for k in range(4)]
    prompts[bad_row] = [20, 2]
    engine = RolloutEngine(model, tokenizer, max_rows=2, poll_every=poll_every)
    banned = Budget(20, 5)
    with pytest.raises(
        RuntimeError,
        match=rf"row {2 * bad_row} \(prompt {bad_row}\): the model's logits of its token 0 hold NaN",
    ):
        engine.generate(prompts, banned, 2, Sampling(temperature=0.0))


def test_nan_in_a_row_that_is_forced_is_not_read(tokenizer):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[20] = float("nan")
    engine = RolloutEngine(model, tokenizer)
    budget = Budget(0, 1, closing="aaa</think>")
    with pytest.raises(RuntimeError, match=r"row 0 \(prompt 0\): the model's logits of its token 4"):
        engine.generate([[20, 2]], budget)
