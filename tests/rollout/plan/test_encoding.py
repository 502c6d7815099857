"""BOS: texts stay as they stand, unless asked; what is missing or doubled is said once."""

import pytest
from tokenizers.processors import TemplateProcessing

from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout import chat_prompts
from elastic.rollout.plan.encoding import special_tokens
from tests.rollout.calls import said
from tests.rollout.small_models import make_model, make_tokenizer

BUDGET, SAMPLING = Budget(2, 2), Sampling(seed=1)
A, Z, THINK = 6, 31, 2


def with_bos(front: str = "z", behind: str = ""):
    """A tokenizer that puts its BOS (here the letter z) in front of every text by itself."""
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "z"
    single = " ".join(part for part in (front, "$A", behind) if part)
    tokens = [("z", Z), ("<eos>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=tokens)
    assert tokenizer.encode("a") == [*([Z] if front else []), A, *([1] if behind else [])]
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}<think>"
    return tokenizer


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_raw_texts_that_lack_the_tokenizers_bos_are_pointed_out_once(model):
    engine = RolloutEngine(model, with_bos())
    prompts = ["za<think>", "a<think>", [A, THINK], "b<think>"]
    (message,) = said(lambda: engine.generate(prompts, BUDGET, sampling=SAMPLING))
    assert message.startswith("prompts: 2 of 4 (first: prompt 1) do not start with z, which the tokenizer")
    assert "add_special_tokens=True" in message
    assert said(lambda: engine.generate(prompts, BUDGET, sampling=SAMPLING)) == []


@pytest.mark.parametrize("place", ["engine", "call"])
def test_the_option_adds_the_bos_or_says_that_none_is_meant(model, place):
    def prompt(value):
        batches = []
        own, given = (value, {}) if place == "engine" else (not value, {"add_special_tokens": value})
        engine = RolloutEngine(model, with_bos(), add_special_tokens=own)
        call = lambda: batches.append(engine.generate(["a<think>"], BUDGET, sampling=SAMPLING, **given))  # noqa: E731
        assert said(call) == []
        return batches[0].prompt(0)

    assert prompt(True) == [Z, A, THINK]
    assert prompt(False) == [A, THINK]


def test_by_default_texts_stay_as_they_stand(model):
    with pytest.warns(UserWarning, match="do not start with z"):
        batch = RolloutEngine(model, with_bos()).generate(["a<think>"], BUDGET)
    assert batch.prompts == [[A, THINK]]


def test_prompts_of_a_chat_template_carry_their_bos_and_get_no_second_one(model):
    tokenizer = with_bos()
    prompts = chat_prompts(tokenizer, ["a", "b"])
    engine = RolloutEngine(model, tokenizer)
    assert said(lambda: engine.generate(prompts, BUDGET, sampling=SAMPLING)) == []
    messages = said(
        lambda: engine.generate(prompts, BUDGET, sampling=SAMPLING, add_special_tokens=True).prompt(0)
    )
    assert messages == [
        "prompts: 2 of 2 (first: prompt 0) start with z twice; pass add_special_tokens=False, or take it out "
        "of the texts"
    ]


@pytest.mark.parametrize("prompt", ["zza<think>", [Z, Z, A, THINK]])
def test_a_doubled_bos_is_pointed_out_once(model, prompt):
    engine = RolloutEngine(model, with_bos())
    (message,) = said(lambda: engine.generate([[A, THINK], prompt], BUDGET, sampling=SAMPLING))
    assert message.startswith("prompts: 1 of 2 (first: prompt 1) start with z twice; apply the chat template")
    assert said(lambda: engine.generate([prompt], BUDGET, sampling=SAMPLING)) == []


def test_a_tokenizer_that_adds_nothing_warns_of_nothing(model, tokenizer):
    assert special_tokens(tokenizer, "ab") == ([], [])
    engine = RolloutEngine(model, tokenizer)
    assert said(lambda: engine.generate(["ab<think>"], BUDGET, sampling=SAMPLING)) == []


def test_special_tokens_behind_a_text_would_end_the_prompt_and_are_refused(model):
    engine = RolloutEngine(model, with_bos(behind="<eos>"), add_special_tokens=True)
    with pytest.raises(ValueError, match=r"add_special_tokens: the tokenizer puts \['<eos>'\] behind a text"):
        engine.generate(["a<think>"], BUDGET)


def test_another_value_is_refused_by_name(model, tokenizer):
    with pytest.raises(TypeError, match="add_special_tokens: expected True, False or None, got 'yes'"):
        RolloutEngine(model, tokenizer).generate(["a"], BUDGET, add_special_tokens="yes")
