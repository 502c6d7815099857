"""Every method on the embedded model, and several cuts of one thought."""

import pytest

from elastic.budget import Budget
from elastic.data import load
from elastic.evaluate import EvalSet, PolicyOptions, eval_set, evaluate, open_engine, rows_of
from elastic.evaluate.methods import METHODS
from elastic.models import tiny
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling

PROBLEMS = load("tiny", count=6, seed=5, split="test")
SAMPLING = Sampling(1.0, seed=2)


@pytest.fixture(scope="module")
def engine() -> RolloutEngine:
    return RolloutEngine(*tiny.load(), max_rows=32, progress=False)


@pytest.fixture(scope="module")
def problems(engine) -> EvalSet:
    return eval_set("tiny", PROBLEMS, engine.tokenizer)


def test_every_method_runs_on_the_embedded_model(engine, problems) -> None:
    options = PolicyOptions(max_extensions=1, closing="{end} answer is")
    samples = evaluate(engine, problems, list(METHODS), "8:24,none", sampling=SAMPLING, options=options)
    rows = rows_of(samples)
    assert {row.method for row in rows if row.is_unlimited} == METHODS.keys()
    assert len(rows) == 2 * len(METHODS)
    limited = {row.method: row for row in rows if not row.is_unlimited}
    one_cap = {name for name, row in limited.items() if row.total == 32}
    assert one_cap == {"vanilla", "l1_exact", "l1_max", "dler"}
    assert limited["s1"].thinking_tokens == 8
    assert limited["l1_exact"].tokens > 32  # told, not cut


def test_splits_of_one_sum_are_one_row_of_a_method_with_one_cap(engine, problems) -> None:
    samples = evaluate(
        engine, problems, ["vanilla", "separate", "l1_max"], "8:24,24:8,none", sampling=SAMPLING
    )
    keys = [(sample.method, sample.budget, sample.problem, sample.sample) for sample in samples]
    assert len(set(keys)) == len(keys) == (2 + 3 + 2) * len(PROBLEMS)


def test_cuts_of_one_thought_are_separate_budgets(engine, problems) -> None:
    def answers(method: str) -> list:
        samples = evaluate(engine, problems, [method], "0:24,8:24,24:12,none", samples=2, sampling=SAMPLING)
        return [sample.to_dict() | {"method": ""} for sample in samples]

    assert answers("anytime") == answers("separate")


def test_cuts_of_one_thought_think_once(engine, problems, monkeypatch) -> None:
    budgets = []
    generate = engine.generate

    def counted(prompts, budget, *arguments, **named):
        budgets.append(budget)
        return generate(prompts, budget, *arguments, **named)

    monkeypatch.setattr(engine, "generate", counted)
    evaluate(engine, problems, ["anytime"], "8:24,16:24,24:24", sampling=SAMPLING)
    assert budgets == [Budget(24, 1)]  # solutions are drawn from within that thought


def test_cuts_of_one_thought_need_the_own_engine(problems) -> None:
    engine = open_engine("hf", *tiny.load())
    with pytest.raises(ValueError, match="engine: anytime cuts one thought several times"):
        evaluate(engine, problems, ["anytime"], "8:24")


def test_both_engines_give_the_same_samples(engine, problems) -> None:
    other = open_engine("hf", engine.model, engine.tokenizer, max_rows=4)
    own, others = (
        evaluate(decoder, problems, ["s1", "separate"], "8:24,-:6", samples=2, sampling=SAMPLING)
        for decoder in (engine, other)
    )
    assert own == others


def test_a_prompt_that_does_not_fit_is_named_with_its_set_and_method(engine) -> None:
    context = engine.limits.context
    problems = EvalSet("long", [PROBLEMS[0]], tiny.reward)
    with pytest.raises(ValueError, match=r"long, separate: prompt 0: .* context"):
        evaluate(engine, problems, ["separate"], [(context - 10, 8)])


def test_a_reward_that_a_set_does_not_have_is_refused(engine) -> None:
    with pytest.raises(ValueError, match="reward: expected one of math, tiny, code, got 'maths'"):
        eval_set("tiny", PROBLEMS, engine.tokenizer, reward="maths")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": "Be brief."}, "system: needs questions and a chat template"),
        ({"suffix": "so"}, "suffix: needs questions and a chat template"),
    ],
)
def test_what_only_a_template_can_place_is_refused_without_one(engine, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        eval_set("tiny", PROBLEMS, engine.tokenizer, **options)


def test_a_template_that_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="chat: the prompts of 'sums' need a chat template"):
        eval_set("sums", PROBLEMS, object(), chat=True)
