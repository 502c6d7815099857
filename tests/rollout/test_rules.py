"""R18 to R22 in the engine, by a model that writes what it is told; `replay` says the same of each row."""

import random

import pytest

from elastic import (
    Budget,
    FinishReason,
    Markers,
    Phase,
    RolloutBatch,
    RolloutEngine,
    Sampling,
    Source,
)
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling
from tests.rollout.calls import ANNOTATION, assert_replayed, assert_same, mixed_budgets
from tests.rollout.scripted import THINK, TOOLS, byte_tokenizer, play, scripted_engine
from tests.rollout.small_models import biased, make_tokenizer

SPECIAL = byte_tokenizer(special=(*THINK, *TOOLS, "[stop]"))
PLAIN = byte_tokenizer(special=())


@pytest.fixture(scope="module")
def engine():
    return scripted_engine(SPECIAL)


@pytest.fixture(scope="module")
def plain():
    """Markers of one token a byte, a phrase in front of the end, and a call that ends thinking."""
    return scripted_engine(PLAIN, markers=Markers.from_tokenizer(PLAIN, "<t>", "Done.</t>", ["CALL:"]))


def facts(batch: RolloutBatch) -> tuple[str, str, int, int, bool]:
    tokens = int(batch.thinking_tokens[0]), int(batch.solution_tokens[0])
    return batch.thinking(0), batch.solution(0), *tokens, bool(batch.thinking_cut[0])


def ending(row: int, tokens: int):
    """An `on_token` that ends the thinking of a row when it has emitted so many tokens."""
    seen = [0]

    def on_token(at: int, token: int, phase: int, source: int) -> str | None:
        seen[0] += at == row
        return "end_thinking" if at == row and seen[0] == tokens else None

    return on_token


def test_a_prompt_as_long_as_the_budget_or_longer_changes_nothing(engine):
    for length in (1, 4, 5, 6, 50):
        batch = play(engine, "q" * length + "<think>", "abcdefghijklmnop", Budget(5, 2))
        assert facts(batch) == ("abcde", "gh", 5, 2, True), length


# R18


def test_a_tool_call_ends_thinking_and_no_marker_is_forced_into_its_arguments(engine):
    budget = Budget(6, 40)
    batch = play(engine, "q<think>", 'hm<tool_call>{"a":1}</tool_call><eos>', budget)
    assert facts(batch) == ("hm", '<tool_call>{"a":1}</tool_call>', 2, 10, False)
    assert batch.text(0) == 'hm<tool_call>{"a":1}</tool_call>'
    assert batch.finish_reason.tolist() == [FinishReason.STOP]
    assert_replayed(batch, budget)


def test_a_tool_call_that_spends_the_solution_budget_is_cut_there(engine):
    batch = play(engine, "q<think>", "hm<tool_call>xyz", Budget(6, 1))
    assert facts(batch) == ("hm", "<tool_call>", 2, 1, False)
    assert batch.finish_reason.tolist() == [FinishReason.SOLUTION_BUDGET]
    assert_replayed(batch, Budget(6, 1))


def test_a_tool_call_of_several_tokens_counts_whole_in_the_solution(plain):
    batch = play(plain, "q<t>", "hmCALL:x<eos>", Budget(20, 40))
    assert facts(batch) == ("hm", "CALL:x", 2, 7, False)
    assert_replayed(batch, Budget(20, 40))


@pytest.mark.parametrize(("script", "thinking"), [("hm</t>ok<eos>", "hm"), ("hmDone.</t>ok<eos>", "hm")])
def test_a_bare_end_marker_ends_thinking_where_the_configured_one_has_a_phrase(plain, script, thinking):
    batch = play(plain, "q<t>", script, Budget(30, 9))
    assert facts(batch) == (thinking, "ok", 2, 3, False)
    assert_replayed(batch, Budget(30, 9))


def test_a_cut_forces_the_whole_phrase_and_finishes_a_bare_end_in_progress(plain):
    cut = play(plain, "q<t>", "abcdefghijklmn", Budget(3, 2))
    assert cut.text(0) == "abcDone.</t>mn"
    begun = play(plain, "q<t>", "a</xxyy", Budget(3, 2))
    assert begun.text(0) == "a</t>yy"
    for batch in (cut, begun):
        assert batch.thinking_cut.all()
        assert_replayed(batch, Budget(3, 2))
    assert (begun.thinking(0), begun.solution(0)) == ("a", "yy")


def test_a_prompt_that_ends_in_a_tool_call_has_ended_its_thinking(engine):
    batch = play(engine, "q<think>hm<tool_call>", "x<eos>", Budget(5, 5))
    assert batch.initial_phase.tolist() == [Phase.SOLUTION]
    assert facts(batch) == ("", "x", 0, 2, False)


# R20


@pytest.mark.parametrize("end", ["</think>", "[stop]"])
def test_a_second_end_behind_a_forced_close_is_text_or_masked(end):
    stop = NaturalEnd((Spelling(tuple(SPECIAL.encode("[stop]"))),), "[stop]", opens=False)
    engine = scripted_engine(SPECIAL, markers=Markers.from_tokenizer(SPECIAL, ends=["<tool_call>", stop]))
    for kind, wanted in (("count", True), ("forbid", False)):
        budget = Budget(2, 6, on_reclose=kind)
        batch = play(engine, "q<think>", f"ab.x{end}<tool_call>y<eos>", budget)
        assert (end in batch.solution(0)) is wanted
        assert "<tool_call>" in batch.solution(0)
        assert_replayed(batch, budget)
    # ... behind an end of the model's own nothing is masked
    own = play(engine, "q<think>", f"a</think>x{end}y<eos>", Budget(5, 9, on_reclose="forbid"))
    assert own.solution(0) == f"x{end}y"


# R21


@pytest.mark.parametrize(
    ("text", "limit", "waited"), [("ab世", 4, 1), ("ab世", 3, 2), ("ab世", 5, 0), ("😀😀", 5, 3), ("é", 1, 1)]
)
def test_a_cut_inside_a_character_waits_until_it_is_whole(engine, text, limit, waited):
    budget = Budget(limit, 4, whole_characters=True)
    batch = play(engine, "q<think>", text + "c" * 20, budget)
    assert batch.thinking(0) == text
    assert batch.thinking_tokens.tolist() == [limit + waited]
    assert "\ufffd" not in batch.text(0)
    assert_replayed(batch, budget)
    at_once = play(engine, "q<think>", text + "c" * 20, Budget(limit, 4))
    assert at_once.thinking(0).endswith("\ufffd") is (waited > 0)


def test_a_solution_is_cut_at_a_whole_character_too(engine):
    budget = Budget(2, 4, whole_characters=True)
    batch = play(engine, "q<think>", "ab.世世世", budget)
    assert (batch.solution(0), batch.solution_tokens.tolist()) == ("世世", [6])
    assert batch.finish_reason.tolist() == [FinishReason.SOLUTION_BUDGET]
    assert_replayed(batch, budget)


def test_the_bound_has_room_for_three_tokens_more(engine):
    for phase in ("thinking", "opening", "solution"):
        plain, whole = (
            Budget(5, 4, whole_characters=w).max_tokens(engine.markers, phase=Phase[phase.upper()])
            for w in (False, True)
        )
        assert whole == plain + 3


# R22


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_thinking_that_is_ended_from_outside_is_closed_with_the_next_token(engine, tokens):
    budget = Budget(20, 9, closing="so</think>!")
    batch = play(engine, "q<think>", "abcdefghijklmnop", budget, on_token=ending(0, tokens))
    assert batch.ended_at.tolist() == [tokens]
    assert batch.thinking(0) == "abcde"[:tokens] + "so"
    assert batch.source[0, tokens : tokens + 4].tolist() == [Source.FORCED] * 4
    assert batch.solution(0).startswith("!")
    assert batch.thinking_cut.all()
    assert_replayed(batch, budget)


def test_it_can_be_ended_where_no_budget_would_end_it_and_the_record_says_when(engine, tmp_path):
    for budget in (Budget.unlimited(), Budget.vanilla(30), Budget(None, 5)):
        batch = play(engine, "q<think>", "abcdefghij" * 3, budget, on_token=ending(0, 3))
        assert (batch.thinking(0), batch.ended_at.tolist()) == ("abc", [3])
        batch.save(tmp_path / "rollout")
        loaded = RolloutBatch.load(tmp_path / "rollout", SPECIAL)
        assert loaded.ended_at.tolist() == [3]
        assert_replayed(loaded, budget)


def test_a_row_that_has_not_begun_to_think_closes_as_soon_as_it_does(engine):
    batch = play(engine, "q", "\n<think>abc", Budget(9, 9), on_token=ending(0, 1))
    assert batch.text(0).startswith("\n<think></think>")
    assert batch.ended_at.tolist() == [1]
    assert_replayed(batch, Budget(9, 9))


def test_a_notice_ends_first(engine):
    budget = Budget(9, 9, notices=((2, "NOW"),))
    batch = play(engine, "q<think>", "abcdefghijklmn", budget, on_token=ending(0, 3))
    assert batch.thinking(0) == "abNOW"
    assert_replayed(batch, budget)


def test_a_solution_has_no_thinking_to_end(engine):
    batch = play(engine, "q<think>", "a</think>xyz<eos>", Budget(9, 9), on_token=ending(0, 3))
    assert (batch.text(0), batch.ended_at.tolist()) == ("a</think>xyz", [-1])
    last = play(engine, "q<think>", "a</think>x<eos>", Budget(9, 9), on_token=ending(0, 4))
    assert last.ended_at.tolist() == [-1]


def test_the_first_end_is_the_one_that_counts(engine):
    batch = play(engine, "q<think>", "abcdefgh", Budget(9, 9), on_token=lambda *_: "end_thinking")
    assert batch.ended_at.tolist() == [1]
    assert batch.thinking(0) == "a"
    assert_replayed(batch, Budget(9, 9))
    opening = play(engine, "q", "\n\n<think>abc", Budget(9, 9), on_token=lambda *_: "end_thinking")
    assert opening.ended_at.tolist() == [1]


@pytest.mark.parametrize("answer", ["stop", True, 1])
def test_another_answer_of_on_token_is_refused(engine, answer):
    with pytest.raises(ValueError, match="on_token: expected None or 'end_thinking' returned, got"):
        play(engine, "q<think>", "ab", Budget(9, 9), on_token=lambda *_: answer)


def test_rows_that_are_ended_are_the_same_for_any_number_of_slots():
    model = biased(0, 3, -4.0)
    prompts, budgets = ["ab1+2=<think>", "c<think>", "x=y", "zz<think>"], mixed_budgets(24, 5)
    batches = []
    for max_rows, options in ((1, {}), (5, {"refill_rows": 2}), (24, {}), (7, {"poll_every": 6})):
        seen = [0] * 24

        def on_token(row: int, token: int, phase: int, source: int, seen: list[int] = seen) -> str | None:
            seen[row] += 1
            return "end_thinking" if seen[row] == row % 7 + 1 else None

        engine = RolloutEngine(model, make_tokenizer(), max_rows=max_rows, **options)
        batch = engine.generate(
            *(prompts, budgets, 6, Sampling(temperature=1.0, seed=8)), max_new_tokens=90, on_token=on_token
        )
        batches.append(batch)
        assert_replayed(batch, budgets)
    assert 6 < int((batches[0].ended_at >= 0).sum()) < 24
    for batch in batches[1:]:
        assert_same(batch, batches[0], ("tokens", "ended_at", *ANNOTATION))


# All of them


def random_budget(rng: random.Random, markers: Markers) -> Budget:
    options = {
        "on_eos": rng.choice(["close", "stop"]),
        "on_reopen": rng.choice(["count", "forbid"]),
        "on_reclose": rng.choice(["count", "forbid"]),
        "whole_characters": rng.random() < 0.5,
    }
    if rng.random() < 0.4:
        options["closing"] = "so\n{end}" + rng.choice(["", "ok"])
    kind = rng.randrange(6)
    thinking, solution = rng.randrange(12), rng.randrange(1, 9)
    if kind == 0:
        return Budget(None, solution, **options)
    if kind == 1:
        return Budget(None, None, rng.randrange(1, 20), **options)
    if kind == 2:
        return Budget(thinking + 3, solution, min_thinking=3, max_extensions=2, extension="w", **options)
    if kind == 3:
        return Budget(thinking + 3, solution, notices=((2, "hey"),), grace=3, boundary=("b", "\n"), **options)
    if kind == 4:
        return Budget(thinking, solution, total=thinking + rng.randrange(1, 9), **options)
    return Budget(thinking, solution, **options)


@pytest.mark.filterwarnings("ignore:prompts")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("which", ["engine", "plain"])
def test_replay_says_of_every_row_what_the_engine_says(request, which, seed):
    engine = request.getfixturevalue(which)
    rng = random.Random(f"{which} {seed}")
    start, end = engine.markers.start_text, engine.markers.end_text
    parts = ["a", "b", "\n", " ", "世", "é", start, end, end[-4:], "<eos>", "<tool_call>", "CALL:"]
    encode = lambda text: engine.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    for _ in range(12):
        budget = random_budget(rng, engine.markers)
        script = [token for _ in range(14) for token in encode(rng.choice(parts))[: rng.choice([1, 2, 9, 9])]]
        prompt, phase = rng.choice(
            [("q", None), (f"q{start}", None), (f"q{start}ab", "thinking"), ("q", "solution")]
        )
        used = rng.randrange(8) if phase else 0
        on_token = rng.choice([None, ending(0, rng.randrange(1, 9))])
        batch = play(
            *(engine, prompt, script, budget),
            phase=phase,
            thinking_used=used,
            on_token=on_token,
        )
        assert_replayed(batch, budget)
        begun = Phase(int(batch.initial_phase[0]))
        if budget.max_tokens(engine.markers, phase=begun, thinking_used=used) is not None:
            assert batch.finish_reason[0] != FinishReason.LENGTH  # the bound was one
        assert batch.text(0).endswith(batch.solution(0))
        assert batch.thinking(0) in batch.text(0)
