"""Stop strings: found across tokens, in what a row writes as its solution, and nothing behind them stays."""

from dataclasses import replace

import pytest
import torch

from elastic import Budget, FinishReason, Phase, RolloutBatch, RolloutEngine, Source
from tests.rollout.calls import ANNOTATION, HOT, PROMPTS, assert_replayed, mixed_budgets
from tests.rollout.scripted import byte_tokenizer, play, scripted_engine

# One token that holds a stop string and more, one that ends in the middle of a character.
TOKENIZER = byte_tokenizer(pieces=("x.y", "é"[:1]))
FIELDS = ["tokens", "logprobs", "full_logprobs", "seeds", "prompt_index", "ended_at", *ANNOTATION]
STOP = ["a", "b1", "=c", "zz"]


@pytest.fixture(scope="module")
def engine():
    return scripted_engine(TOKENIZER)


def ends(batch: RolloutBatch) -> tuple[str, str, int, str]:
    reason = FinishReason(int(batch.finish_reason[0])).text
    return batch.text(0), batch.solution(0), int(batch.lengths[0]), reason


@pytest.mark.parametrize(
    ("script", "stop", "expected"),
    [
        ("t</think>one.two", ["."], ("t</think>one", "one", 6, "stop")),
        ("t</think>one.two", ["ne.t", "wo"], ("t</think>o", "o", 7, "stop")),  # across tokens
        ("t</think>ne.ne.two", ["e.t"], ("t</think>ne.n", "ne.n", 9, "stop")),  # begun once in vain
        ("a.b</think>one.", ["."], ("a.b</think>one", "one", 8, "stop")),  # a thought ends no row
        ("a.</think>.", ["..", "k>."], ("a.</think>.", ".", 5, "stop")),  # nor begins it, nor a marker: EOS
        ("t</think>.", ["."], ("t</think>", "", 3, "stop")),
        ("t</think>one<eos>", ["<eos>", "q"], ("t</think>one", "one", 6, "stop")),  # EOS, as without
        ("t</think>日本", ["本"], ("t</think>日", "日", 8, "stop")),
        ("t</think>onetwo", ["etw", "tw", "et"], ("t</think>on", "on", 6, "stop")),
    ],
)
def test_a_row_ends_at_a_stop_string_of_its_solution(engine, script, stop, expected):
    batch = play(engine, "q<think>", script, Budget(30, 30), stop=stop)
    assert ends(batch) == expected
    assert int(batch.solution_tokens[0]) == int((batch.phase[0] == Phase.SOLUTION).sum())
    assert_replayed(batch, Budget(30, 30))


def test_a_token_that_holds_more_than_the_stop_string_is_kept_whole(engine):
    ids = [*TOKENIZER.encode("t</think>o"), TOKENIZER.convert_tokens_to_ids("x.y"), 5]
    batch = play(engine, "q<think>", ids, Budget(30, 30), stop=["."])
    assert batch.tokens[0].tolist() == ids[:-1]
    assert batch.text(0) == "t</think>ox"


def test_forced_text_neither_holds_a_stop_string_nor_begins_one(engine):
    budget = Budget(2, 9, closing=".</think>.\nAnswer.")
    batch = play(engine, "q<think>", "t" * 12 + "...", budget, stop=["r.t", "...", "."])
    assert batch.text(0) == "tt.</think>.\nAnswer."  # up to a stop string that the row wrote itself
    batch = play(engine, "q<think>", "tt" + "-" * 11 + "ttt...", budget, stop=["...", "r.t", "t."])
    assert batch.solution(0) == ".\nAnswer.tt"
    assert_replayed(batch, budget)


def test_a_stop_string_counts_where_the_budget_ends_the_row_with_it(engine):
    batch = play(engine, "q<think>", "t</think>one.two", Budget(9, 4), stop=["."])
    assert ends(batch) == ("t</think>one", "one", 6, "stop")
    assert_replayed(batch, Budget(9, 4))


def test_a_row_that_never_thinks_ends_at_one_too(engine):
    batch = play(engine, "q", "one.two", Budget(None, 9), stop="ne")
    assert ends(batch) == ("o", "o", 3, "stop")


def earliest(batch: RolloutBatch, row: int, stop: list[str]) -> int | None:
    """Tokens up to the first that completes a stop string: one may be in the middle of "<pad>"."""
    text = ""
    for column in range(int(batch.lengths[row])):
        token, phase, source = (int(f[row, column]) for f in (batch.tokens, batch.phase, batch.source))
        if phase != Phase.SOLUTION or source != Source.SAMPLED or token in batch.eos_ids:
            text = ""
            continue
        text += batch.tokenizer.decode([token])
        if any(string in text for string in stop):
            return column + 1
    return None


@pytest.fixture(scope="module")
def expected(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    return engine.generate(PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90, stop=STOP)


def test_rows_are_those_without_stop_strings_cut_there(model, tokenizer, expected):
    whole = RolloutEngine(model, tokenizer, max_rows=8).generate(
        PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90
    )
    cuts = [earliest(whole, row, STOP) for row in range(48)]
    assert 10 < sum(cut is not None for cut in cuts) < 48
    for row, cut in enumerate(cuts):
        length = int(whole.lengths[row]) if cut is None else cut
        assert int(expected.lengths[row]) == length
        assert expected.tokens[row, :length].tolist() == whole.tokens[row, :length].tolist()
        reason = whole.finish_reason[row] if cut is None else FinishReason.STOP
        assert int(expected.finish_reason[row]) == reason
        assert cut is None or not any(expected.solution(row).endswith(string) for string in STOP)
    assert_replayed(expected, mixed_budgets(48))


@pytest.mark.parametrize(
    ("max_rows", "poll_every", "lagged"),
    [(8, 7, False), (8, 3, True), (3, 4, True), (48, 100, True), (1, 8, True)],
)
def test_looking_now_and_then_changes_no_row(model, tokenizer, expected, max_rows, poll_every, lagged):
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows, poll_every=poll_every)
    engine._lagged = lagged
    batch = engine.generate(PROMPTS, mixed_budgets(48), 8, HOT, max_new_tokens=90, stop=STOP)
    for name in FIELDS:
        if "logprobs" in name:
            torch.testing.assert_close(getattr(batch, name), getattr(expected, name), atol=2e-6, rtol=0)
        else:
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name


def test_files_and_joined_batches_keep_stop_strings_and_texts(expected, tokenizer, tmp_path):
    expected.save(tmp_path / "batch.safetensors")
    loaded = RolloutBatch.load(tmp_path / "batch.safetensors", tokenizer)
    assert loaded.stop == tuple(STOP)
    joined = RolloutBatch.cat([loaded, expected[3:7]])
    texts = [expected.text(row) for row in range(48)]
    assert [joined.text(row) for row in range(52)] == [*texts, *texts[3:7]]
    assert [record["text"] for record in loaded.to_records()] == texts
    with pytest.raises(ValueError, match=r"different stop strings, \['a', 'b1', '=c', 'zz'\] and \['a'\]"):
        RolloutBatch.cat([expected, replace(expected, stop=("a",))])


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        (["a", ""], ValueError, r"stop: expected texts of at least one character, got \['a', ''\]"),
        ([5], TypeError, r"stop: expected a list of texts, got \[5\]"),
        (5, TypeError, "stop: expected a list of texts, got 5"),
    ],
)
def test_what_is_no_stop_string_is_refused_by_name(engine, stop, error, message):
    with pytest.raises(error, match=message):
        engine.generate(["q"], Budget(2, 2), stop=stop)
