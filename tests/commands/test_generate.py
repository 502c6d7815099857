"""`elastic generate` on the embedded model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from elastic.evaluate.report.display import Display
from elastic.models import tiny
from elastic.rollout import RolloutBatch, RolloutEngine

PROMPT = "<bos> a 3 b + 4 c - 9 d + 2 e + 5 f - 1 g + 8 = ? <think>"


def generate(elastic, *arguments: object):
    return elastic("generate", "tiny", "--raw", "--prompt", PROMPT, "--temperature", "1", *arguments)


def records(path: Path) -> list[dict]:
    return json.loads(path.read_text())


def test_thinking_forced_tokens_and_solution_are_shown_apart(elastic) -> None:
    outcome = generate(elastic, "--thinking", 6, "--solution", 8)
    assert outcome.status == 0
    labels = re.findall(r"^\[(\w+)\]", outcome.out, re.MULTILINE)
    assert labels == ["thinking", "forced", "solution"]
    assert re.search(r"^\[forced\] </think>$", outcome.out, re.MULTILINE)
    assert "6 thinking tokens (cut)" in outcome.out


def test_streaming_shows_the_same_text_as_generating_at_once(elastic) -> None:
    arguments = ("--thinking", 12, "--solution", 8, "--samples", 3, "--seed", 5)
    at_once, streamed = generate(elastic, *arguments), generate(elastic, *arguments, "--stream")
    assert streamed.status == 0
    assert streamed.out == at_once.out
    assert streamed.out.count("[forced] </think>") == 3


def test_streaming_shows_every_token_before_the_completion_is_done(elastic, monkeypatch) -> None:
    events: list[str] = []
    show, complete = Display.token, RolloutEngine.generate

    def shown(self: Display, *fields: int) -> None:
        events.append("token")
        show(self, *fields)

    def completed(self: RolloutEngine, *arguments: Any, **named: Any) -> RolloutBatch:
        batch = complete(self, *arguments, **named)
        events.append("done")
        return batch

    monkeypatch.setattr(Display, "token", shown)
    monkeypatch.setattr(RolloutEngine, "generate", completed)
    generate(elastic, "--thinking", 4, "--solution", 2, "--stream")
    # 4 thinking tokens, the marker, and 1 or 2 solution tokens.
    assert events in (["token"] * 6 + ["done"], ["token"] * 7 + ["done"])


@pytest.mark.parametrize("thinking", [0, 1, 7])
def test_budgets_are_kept(elastic, tmp_path: Path, thinking: int) -> None:
    path = tmp_path / "out.json"
    generate(elastic, "--thinking", thinking, "--solution", 3, "--samples", 8, "--json", path)
    rows = records(path)
    assert len(rows) == 8
    assert {row["thinking_tokens"] for row in rows} == {thinking}
    assert all(row["thinking_cut"] for row in rows)
    assert max(row["solution_tokens"] for row in rows) <= 3


def test_a_total_alone_cuts_hard(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    generate(elastic, "--total", 5, "--json", path)
    (row,) = records(path)
    assert row["finish_reason"] == "total_budget"
    assert len(row["tokens"]) == 5
    assert "</think>" not in row["text"]


def test_a_closing_text_is_forced_and_marked(elastic) -> None:
    outcome = generate(elastic, "--thinking", 2, "--solution", 4, "--closing", "ok . {end} answer is")
    assert re.search(r"^\[forced\] ok \. </think> answer is$", outcome.out, re.MULTILINE)


def test_records_hold_the_texts_and_the_annotation(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    generate(elastic, "--thinking", 4, "--solution", 4, "--json", path)
    (row,) = records(path)
    assert {"prompt", "text", "thinking", "solution", "tokens", "source", "phase", "logprobs"} <= set(row)
    assert row["source"][4] == 1  # the forced end marker
    assert row["prompt"] == PROMPT


def test_the_same_seed_gives_the_same_text_and_another_one_another(elastic) -> None:
    arguments = ("--thinking", 24, "--solution", 8, "--samples", 4)
    first, again = (generate(elastic, *arguments, "--seed", 0) for _ in range(2))
    other = generate(elastic, *arguments, "--seed", 1)
    assert first.out == again.out
    assert first.out != other.out


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_without_a_seed_one_is_drawn_printed_and_recorded(elastic, tmp_path: Path, stream) -> None:
    path = tmp_path / "out.json"
    arguments = ("--thinking", 24, "--solution", 8, "--samples", 4, *stream)
    first, other = (generate(elastic, *arguments, "--json", path) for _ in range(2))
    assert first.out != other.out
    seed = re.search(r"^elastic: seed (\d+); --seed \1 gives the same again$", other.err, re.MULTILINE)[1]
    assert {row["run_seed"] for row in records(path)} == {int(seed)}
    again = generate(elastic, *arguments, "--seed", seed)
    assert again.out == other.out
    assert "elastic: seed" not in again.err


def test_prompts_come_from_a_text_file_or_from_problems(elastic, tmp_path: Path) -> None:
    text, problems = tmp_path / "prompts.txt", tmp_path / "problems.jsonl"
    text.write_text(f"{PROMPT}\n\n{PROMPT}\n")
    problems.write_text("".join(json.dumps({"prompt": PROMPT, "answer": "2"}) + "\n" for _ in range(2)))
    outputs = [
        elastic(
            *("generate", "tiny", "--raw", "--prompts", path, "--thinking", 2, "--solution", 2, "--seed", 3)
        ).out
        for path in (text, problems)
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("=== prompt") == 2


def test_a_question_goes_through_the_chat_template(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    outcome = elastic(
        "generate", "tiny", "--prompt", "a 3 b + 4 = ?", "--thinking", 2, "--solution", 2, "--json", path
    )
    assert outcome.status == 0
    assert records(path)[0]["prompt"] == "<bos> a 3 b + 4 = ? <think>"


def test_words_the_model_does_not_know_are_pointed_out(elastic) -> None:
    outcome = elastic("generate", "tiny", "--prompt", "a three b + 4 = ?", "--thinking", 2, "--solution", 2)
    assert "prompt 1 holds words that the model does not know" in outcome.err


def test_raw_prompts_get_the_bos_when_asked_for(elastic, tmp_path: Path) -> None:
    model, tokenizer = tiny.load()
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    folder, path = tmp_path / "model", tmp_path / "out.json"
    said: list[str] = []
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def prompt(*arguments: object) -> list[int]:
        outcome = elastic(
            *("generate", folder, "--prompt", "3 = ? <think>", "--thinking", 2, "--solution", 2),
            *("--json", path),
            *arguments,
        )
        assert outcome.status == 0
        said.append(outcome.err)
        return records(path)[0]["prompt_tokens"]

    words = tokenizer.encode("3 = ? <think>", add_special_tokens=False)
    assert prompt("--raw", "--add-special-tokens") == [bos, *words]
    assert prompt("--raw", "--no-add-special-tokens") == words
    assert prompt().count(bos) == 1  # the chat template's own
    assert "warning" not in said[-1]
    assert prompt("--raw") == words
    (line,) = [line for line in said[-1].splitlines() if "warning" in line]
    assert line.startswith("elastic: warning: prompts: 1 of 1 (first: prompt 1) do not start with <bos>")
    assert "pass --add-special-tokens to have it, or --no-add-special-tokens if" in line
