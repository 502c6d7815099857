"""Requests for a length in the task's own words, and the pretraining that makes the model read them."""

import random

import pytest
import torch

from elastic.data.sums import END, MAX_OPERATIONS, REQUESTS, ask
from elastic.models import tiny
from elastic.models.loading import load_model
from elastic.models.tiny import pretrain
from elastic.models.tiny.requests import main, read_requests
from elastic.models.tiny.vocabulary import WORDS

PROMPT = "<bos> a 3 b + 4 = ? <think>"


@pytest.mark.parametrize(
    ("kind", "tokens", "expected"),
    [
        ("l1-exact", 40, "<bos> a 3 b + 4 = ? so : 4 0 <think>"),
        ("l1-max", 128, "<bos> a 3 b + 4 = ? ok : 1 2 8 <think>"),
        ("l1-max", 0, "<bos> a 3 b + 4 = ? ok : 0 <think>"),
    ],
)
def test_a_request_stands_in_front_of_the_open_thought_in_known_words(kind, tokens, expected):
    assert ask(PROMPT, kind, tokens) == expected
    assert set(expected.split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("prompt", "kind", "tokens", "message"),
    [
        (PROMPT, "l2", 4, "kind must be one of l1-exact, l1-max, got 'l2'"),
        (PROMPT, "l1-max", -1, "tokens must be at least 0, got -1"),
        ("a 3 b + 4 = ?", "l1-max", 4, "must end in '<think>', got 'a 3 b"),
        ("<bos> a 3 <think> we", "l1-max", 4, "must end in '<think>'"),
    ],
)
def test_what_cannot_be_asked_is_refused(prompt, kind, tokens, message):
    with pytest.raises(ValueError, match=message):
        ask(prompt, kind, tokens)


def test_a_request_changes_the_prompt_of_a_trace_and_nothing_else():
    plain = pretrain.row(random.Random(3), MAX_OPERATIONS)
    asked = pretrain.row(random.Random(3), MAX_OPERATIONS, lambda prompt: ask(prompt, "l1-exact", 40))
    assert len(asked[0]) == len(plain[0]) + 4
    start = asked[1].index(next(label for label in asked[1] if label >= 0))
    assert asked[0][start:] == plain[0][start - 4 :]
    assert asked[1][start:] == plain[1][start - 4 :]
    assert set(asked[1][:start]) == {-100}


def test_reading_is_deterministic_and_leaves_the_model_it_starts_from_alone():
    base, _ = tiny.load()
    before = [weight.clone() for weight in base.parameters()]
    first, second = (read_requests(base, 2, 1, rows_per_batch=2, progress=False) for _ in range(2))
    for weight, old, one, other in zip(
        *(base.parameters(), before, first.parameters(), second.parameters()), strict=True
    ):
        assert torch.equal(weight, old)
        assert torch.equal(one, other)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), before, strict=True))


def test_the_share_of_rows_that_ask_is_the_one_given(monkeypatch):
    drawn = []
    monkeypatch.setattr("elastic.models.tiny.requests.fit", lambda model, data, *_: drawn.extend(data))
    base, tokenizer = tiny.load()
    read_requests(base, 20, asked_share=0.25, lengths=(7, 7), rows_per_batch=16)
    texts = [text.partition(END)[0] for ids, _ in drawn for text in tokenizer.batch_decode(ids)]
    counts = [sum(f"? {word} : 7 <think>" in text for text in texts) for word in REQUESTS.values()]
    assert sum("? <think>" in text for text in texts) + sum(counts) == len(texts) == 320
    assert 50 < sum(counts) < 110
    assert min(counts) > 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "must be at least 1, got 0"),
        ({"asked_share": 1.5}, r"asked_share must be in \[0, 1\], got 1.5"),
        ({"lengths": (9, 8)}, "least <= greatest, got 9 and 8"),
        ({"lengths": (-1, 8)}, "got -1 and 8"),
    ],
)
def test_reading_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        read_requests(None, **options)  # type: ignore[arg-type]


def test_the_command_writes_a_model_that_loads_and_no_bar_of_transformers(tmp_path, capsys):
    main(["--out", str(tmp_path / "base"), "--steps", "1"])
    assert "Writing" not in capsys.readouterr().err
    model, tokenizer = load_model(str(tmp_path / "base"), device="cpu")
    assert tokenizer("so : 4 0")["input_ids"]
    shipped, _ = tiny.load()
    assert not torch.equal(next(model.parameters()), next(shipped.parameters()))
