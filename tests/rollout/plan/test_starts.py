"""Where rows start: read from prompts, known from chats or stated (R19), and what is said where in doubt."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, RolloutBatch, RolloutEngine, Sampling, replay
from elastic.rollout import ChatPrompt, OutOfContext, chat_prompts
from tests.rollout.calls import HOT, said
from tests.rollout.scripted import byte_tokenizer, play, scripted_engine
from tests.rollout.small_models import biased, make_model, make_tokenizer

OPENING, T, S = Phase.OPENING, Phase.THINKING, Phase.SOLUTION
MODELESS = [Phase.CLOSING, "closing", "Thinking", "", 1, True, Phase.DONE, Phase.NOTICE]


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    return RolloutEngine(model, tokenizer)


@pytest.fixture(scope="module")
def endless():
    """Never ends a thought or a row by itself, and never opens one."""
    return RolloutEngine(biased(0, [1, 2, 3, 4, 5], -100.0), make_tokenizer())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *(
            ({"phase": p}, ValueError, "phase: expected 'opening', 'thinking' or 'solution', got")
            for p in MODELESS
        ),
        ({"phase": ["thinking", 5]}, ValueError, "phase: prompt 1: expected 'opening', .* got 5"),
        ({"phase": [None, "think"]}, ValueError, "phase: prompt 1: expected 'opening', .* got 'think'"),
        ({"phase": ["thinking"]}, ValueError, "phase: expected 2, one per prompt, got 1"),
        (
            {"phase": [None] * 4, "samples_per_prompt": 2},
            ValueError,
            "phase: expected 2, one per prompt, got 4",
        ),
        ({"phase": 1.5}, TypeError, "phase: expected 'opening', .* one per prompt, got 1.5"),
        ({"thinking_used": -1}, ValueError, "thinking_used: expected 0 or more tokens, got -1"),
        ({"thinking_used": True}, ValueError, "thinking_used: expected 0 or more tokens, got True"),
        ({"thinking_used": 2**31}, ValueError, "thinking_used: expected 0 or more tokens, got 2147483648"),
        ({"thinking_used": 1.0}, TypeError, "thinking_used: expected an integer, got 1.0"),
        ({"thinking_used": [1]}, ValueError, "thinking_used: expected 2, one per prompt, got 1"),
        (
            {"thinking_used": [0, -3]},
            ValueError,
            "thinking_used: prompt 1: expected 0 or more tokens, got -3",
        ),
        ({"thinking_used": [0, "3"]}, TypeError, "thinking_used: prompt 1: expected an integer, got '3'"),
        (
            {"thinking_used": [2, 2]},
            ValueError,
            r'thinking_used: prompt 1: expected 0, .* \(opening\), got 2; pass phase="thinking"',
        ),
        (
            {"phase": "opening", "thinking_used": 1},
            ValueError,
            r"thinking_used: prompt 0: expected 0, as its thinking has not begun \(opening\), got 1",
        ),
    ],
)
def test_a_bad_start_is_refused_by_name_before_the_model_runs(tokenizer, arguments, error, message):
    engine = RolloutEngine(make_model(), tokenizer)
    engine.model.forward = None
    with pytest.raises(error, match=message):
        engine.generate(["a<think>", "b"], Budget(5, 5), **arguments)


@pytest.mark.parametrize("phase", ["thinking", Phase.THINKING, ["thinking"] * 3, (T, "thinking", T)])
def test_one_phase_may_be_stated_for_all_prompts_or_each(engine, phase):
    batch = engine.generate(["a", "b<think>", "c"], Budget(2, 2), 2, HOT, phase=phase)
    assert batch.initial_phase.tolist() == [T] * 6
    assert (batch.phase[:, 0] == T).all()


def test_a_stated_phase_is_the_rows_and_none_reads_the_prompt(endless):
    prompts = ["a", "a<think>", "a<think>b", "a<think>", "a<think></think>", "a<think></think>"]
    phase = [None, None, "thinking", "solution", None, "opening"]
    batch = endless.generate(prompts, Budget(3, 2), sampling=HOT, phase=phase)
    assert batch.initial_phase.tolist() == [OPENING, T, T, S, S, OPENING]
    assert batch.thinking_tokens.tolist() == [0, 3, 3, 0, 0, 0]
    assert batch.solution_tokens.tolist() == [2] * 6
    assert batch.lengths.tolist() == [2, 6, 6, 2, 2, 2]
    assert [record["initial_phase"] for record in batch.to_records()] == [
        *("opening", "thinking", "thinking", "solution", "solution", "opening")
    ]


def test_tokens_already_thought_count(endless):
    used = [0, 1, 4, 5, 6, 100]
    batch = endless.generate(["a<think>"] * 6, Budget(5, 2), sampling=HOT, thinking_used=used)
    assert batch.initial_thinking.tolist() == used
    assert [row.index(3) for row in batch.tokens.tolist()] == [5, 4, 1, 0, 0, 0]
    assert batch.thinking_tokens.tolist() == [5] * 6
    assert batch.thinking_cut.all()


def test_tokens_already_thought_count_in_the_total_of_a_solution(endless):
    batch = endless.generate(
        ["a"] * 2, Budget.vanilla(9), sampling=HOT, phase="solution", thinking_used=[0, 4]
    )
    assert batch.solution_tokens.tolist() == [9, 5]
    assert batch.finish_reason.tolist() == [FinishReason.TOTAL_BUDGET] * 2


def test_a_row_whose_total_is_spent_emits_nothing(endless):
    batch = endless.generate(
        ["a", "b"], Budget.vanilla(4), sampling=HOT, phase="thinking", thinking_used=[4, 1]
    )
    assert batch.lengths.tolist() == [0, 3]
    assert [r["finish_reason"] for r in batch.to_records()] == ["total_budget"] * 2
    assert (batch.text(0), batch.thinking(0), batch.solution(0)) == ("", "", "")
    alone = endless.generate(["a"], Budget.vanilla(4), sampling=HOT, phase="thinking", thinking_used=4)
    assert alone.tokens.shape == (1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_replay_gives_the_annotation_of_stated_starts(engine, tokenizer, seed):
    prompts = ["a", "a<think>b", "a<think>", "a<think></think>", "b"]
    budgets = [
        Budget(6, 4),
        Budget(6, 4, total=9),
        Budget(8, 4, min_thinking=5, max_extensions=2, extension="w"),
        Budget(4, 9),
    ]
    budgets.append(Budget(9, 5, notices=((2, "mind"), (7, "time"))))
    for budget in budgets:
        batch = engine.generate(
            *(prompts, budget, 4, Sampling(temperature=1.5, seed=seed)),
            phase=["thinking", "thinking", None, "solution", "opening"],
            thinking_used=[3, 6, 2, 1, 0],
        )
        again = replay(batch, budget, engine.markers)
        for name in (
            "source",
            "phase",
            "thinking_tokens",
            "solution_tokens",
            "thinking_cut",
            "finish_reason",
        ):
            assert torch.equal(getattr(again, name), getattr(batch, name)), name


def test_rows_of_a_saved_batch_start_where_they_did(engine, tokenizer, tmp_path):
    batch = engine.generate(["a", "b<think>"], Budget(6, 3), 2, HOT, phase="thinking", thinking_used=[2, 4])
    batch.save(tmp_path / "rollout")
    loaded = RolloutBatch.load(tmp_path / "rollout", tokenizer)
    assert loaded.initial_phase.tolist() == [T] * 4
    assert loaded[1:3].initial_thinking.tolist() == [2, 4]
    assert RolloutBatch.cat([loaded[3], loaded[:1]]).initial_thinking.tolist() == [4, 2]
    assert torch.equal(replay(loaded, Budget(6, 3), loaded.markers).phase, batch.phase)


def test_a_start_that_is_stated_needs_no_more_room_than_its_row(tokenizer):
    """t + s + the end marker are 41 tokens; 19 thought ones leave 22 of them, and a solution alone has 10."""
    engine = RolloutEngine(make_model(context=64), tokenizer)
    budget = Budget(30, 10)
    prompt = [7] * 42
    with pytest.raises(OutOfContext, match="a prompt of 42 tokens and at most 41"):
        engine.generate([prompt], budget, phase="thinking")
    engine.generate([prompt], budget, phase="thinking", thinking_used=19)
    with pytest.raises(OutOfContext, match="a prompt of 42 tokens and at most 23"):
        engine.generate([prompt], budget, phase="thinking", thinking_used=18)
    engine.generate([[7] * 54], budget, phase="solution")
    with pytest.raises(OutOfContext, match="a prompt of 55 tokens and at most 10"):
        engine.generate([[7] * 55], budget, phase="solution")
    with pytest.raises(OutOfContext, match=f"a prompt of 42 tokens and at most {41 + 33}"):
        engine.generate([prompt], budget, phase="opening")


def test_a_bad_closing_text_is_no_matter_of_the_context(tokenizer):
    engine = RolloutEngine(make_model(context=64), tokenizer)
    for budget in (Budget(3, 3, closing="stop"), Budget(3, None, closing="stop")):
        with pytest.raises(ValueError, match="closing: expected exactly one end marker") as caught:
            engine.generate(["a<think>"], budget)
        assert not isinstance(caught.value, OutOfContext)


# Warnings


def test_a_prompt_that_may_end_inside_a_thought_is_pointed_out_once_a_call(endless):
    prompts = ["a<think>", "a<think>bc", "a<think>b</think>", "a<think>b</think>c", "<think>d"]
    for _ in range(2):
        (message,) = said(lambda: endless.generate(prompts, Budget(3, 2), sampling=HOT))
        assert message.startswith("prompts: 2 of 5 (first: prompt 1) hold a start marker with text behind it")
        assert 'phase="thinking"' in message


@pytest.mark.parametrize("phase", ["opening", "thinking", "solution", [None, "thinking"]])
def test_what_is_stated_is_not_warned_of(endless, phase):
    assert said(lambda: endless.generate(["a<think>", "a<think>b"], Budget(3, 2), phase=phase)) == []


def test_a_thinking_budget_that_did_nothing_is_pointed_out_behind_the_call(endless):
    (message,) = said(lambda: endless.generate(["a", "b"], [Budget(3, 2), Budget(None, 2)], sampling=HOT))
    assert message.startswith("prompts: 1 of 2 (first: prompt 0) do not open thinking, and no completion did")
    assert "End the prompts with '<think>'" in message


@pytest.mark.parametrize("budget", [Budget(None, 3), Budget.vanilla(3), Budget(0, 3)])
def test_without_a_thinking_budget_nothing_is_missed(endless, budget):
    assert said(lambda: endless.generate(["a"], budget, sampling=HOT)) == []


def test_rows_that_think_beside_others_that_do_not_are_no_reason_to_warn(endless):
    assert said(lambda: endless.generate(["a", "b<think>"], Budget(3, 2), sampling=HOT)) == []
    assert said(lambda: endless.generate(["a<think></think>"], Budget(3, 2), sampling=HOT)) == []


def test_a_model_that_opens_thinking_itself_is_no_reason_to_warn():
    engine = scripted_engine(byte_tokenizer())
    assert said(lambda: play(engine, "q", "<think>hm</think>ok", Budget(9, 9))) == []
    assert len(said(lambda: play(engine, "q", "ok", Budget(9, 9)))) == 1


# Chats

QWEN_LIKE = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK_LIKE = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}"
    "{% endif %}[end]{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
)


def chat(assistant: str | None, template: str, **options):
    tokenizer = byte_tokenizer(special=("<think>", "</think>", "[user]", "[assistant]", "[end]"))
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": "q <think>"}]
    messages += [] if assistant is None else [{"role": "assistant", "content": assistant}]
    return tokenizer, chat_prompts(tokenizer, [messages], **options)[0]


@pytest.mark.parametrize(
    ("template", "assistant", "turn", "phase"),
    [
        (QWEN_LIKE, "<think>\nhm", "[assistant]<think>\nhm", T),
        (QWEN_LIKE, "<think>\nhm\n</think>\nso", "[assistant]<think>\nhm\n</think>\nso", S),
        (QWEN_LIKE, "so ", "[assistant]<think>\n\n</think>\n\nso ", S),
        (DEEPSEEK_LIKE, "<think>hm", "[assistant]<think>hm", T),
        (DEEPSEEK_LIKE, "<think>hm</think>so", "[assistant]<think>hm</think>so", S),
        (DEEPSEEK_LIKE, "so", "[assistant]so", S),
        (DEEPSEEK_LIKE, "<think>", "[assistant]<think>", T),
        (DEEPSEEK_LIKE, "<think>hm<tool_call>", "[assistant]<think>hm<tool_call>", S),
    ],
)
def test_a_chat_goes_on_in_the_assistants_message_and_its_phase_is_known(template, assistant, turn, phase):
    tokenizer, prompt = chat(assistant, template)
    assert prompt == f"[user]q <think>[end]{turn}"
    assert (type(prompt), prompt.prefill) == (ChatPrompt, assistant)
    tokenizer.add_tokens(["<tool_call>"])
    engine = scripted_engine(tokenizer)
    batch = None

    def generate():
        nonlocal batch
        batch = engine.generate([prompt], Budget(2, 2))

    assert said(generate) == []
    assert batch.initial_phase.tolist() == [phase]
    assert batch.prompts == [tokenizer.encode(str(prompt), add_special_tokens=False)]
    stated = engine.generate([prompt], Budget(2, 2), phase="opening")
    assert stated.initial_phase.tolist() == [OPENING]


def test_a_thought_of_the_prefill_replaces_what_the_template_closed():
    assert chat("<think>hm", QWEN_LIKE, thinking=False)[1] == "[user]q <think>[end][assistant]<think>hm"


def test_a_chat_that_ends_with_the_user_is_an_ordinary_prompt():
    assert type(chat(None, DEEPSEEK_LIKE)[1]) is str


@pytest.mark.parametrize(
    ("assistant", "template", "message"),
    [
        ("", QWEN_LIKE, "messages: entry 0: expected a text of the assistant to go on, got ''"),
        ("x</think>y", DEEPSEEK_LIKE, "entry 0: the chat template leaves the assistant's last message out"),
        ("ab", "{{ messages[-1].content.replace('a', 'c') }}", "leaves the assistant's last message out"),
    ],
)
def test_a_message_that_cannot_be_gone_on_with_is_refused_by_name(assistant, template, message):
    with pytest.raises(ValueError, match=message):
        chat(assistant, template)


def test_markers_of_ids_alone_know_the_phase_of_a_chat(tokenizer):
    markers = Markers((2,), (3,))
    prompt = ChatPrompt("ab<think>cd", "<think>cd")
    batch = RolloutEngine(make_model(), tokenizer, markers).generate([prompt], Budget(2, 2))
    assert batch.initial_phase.tolist() == [T]
