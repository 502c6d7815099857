"""No flag of `elastic generate` is ignored: each does what it says or is refused with the reason."""

import argparse
import json
import os
from pathlib import Path

import pytest

from elastic.commands.wording import flags_of, in_flags, in_keys
from elastic.models import tiny

PROMPT = "<bos> a 3 b + 4 c - 9 d + 2 e + 5 f - 1 g + 8 = ? <think>"
T, S = ("--thinking", 6), ("--solution", 8)


def generate(elastic, *arguments: object):
    return elastic("generate", "tiny", "--raw", "--prompt", PROMPT, "--seed", 3, *arguments)


def refusal(outcome) -> str:
    assert outcome.status == 2
    assert not outcome.out
    (line,) = outcome.err.splitlines()
    return line.removeprefix("elastic: error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*T, "--stream", "--max-rows", 4), "--max-rows: has no effect: --stream shows one"),
        ((*T, "--temperature", 0, "--top-k", 3), "--top-k: has no effect: --temperature 0 is argmax"),
        ((*T, "--temperature", 0, "--top-p", 1), "--top-p: has no effect: --temperature 0 is argmax"),
        ((*T, "--temperature", 0, "--min-p", 0.1), "--min-p: has no effect: --temperature 0 is argmax"),
        ((*T, *S, "--max-new-tokens", 99), "--max-new-tokens: has no effect: the budgets end every"),
        (("--total", 9, "--max-new-tokens", 99), "--max-new-tokens: has no effect: the budgets end every"),
        (("--total", 9, "--closing", "s1"), "--closing: has no effect: nothing cuts a thought"),
        (("--on-eos", "stop", "--closing", "s1"), "--closing: has no effect: nothing cuts a thought"),
        (("--total", 9, "--on-reclose", "forbid"), "--on-reclose: has no effect: nothing cuts a thought"),
        (("--thinking", 0, "--grace", 2), "--grace: has no effect: --thinking 0 closes at once"),
        ((*T, "--extension", "so"), "--extension: has no effect: there is no --max-extensions"),
        (("--whole-characters",), "--whole-characters: has no effect: no budget cuts anything"),
        ((*T, "--phase", "solution"), "--thinking: has no effect: with --phase solution nothing is thought"),
        (("--end", "<bos>", "--phase", "solution"), "--end: has no effect: with --phase solution"),
        (
            (*T, "--min-thinking", 2),
            "--min-thinking and --max-extensions: one has no effect",
        ),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(elastic, arguments, message) -> None:
    assert refusal(generate(elastic, *arguments)).startswith(message)


def test_flags_that_do_nothing_are_refused_before_torch_is_loaded(elastic, monkeypatch) -> None:
    monkeypatch.setattr("elastic.commands.generate.run", lambda *_: pytest.fail("ran"))
    refusal(generate(elastic, "--total", 9, "--closing", "s1"))


def test_a_closing_is_read_where_eos_or_the_user_can_end_a_thought(elastic) -> None:
    closing = ("--closing", "{end} answer is")
    for arguments in ((), ("--total", 40, "--on-eos", "close"), ("--total", 9, "--stream")):  # by Ctrl-C
        assert generate(elastic, *closing, *arguments).status == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_is_loaded_as_asked(elastic, dtype: str) -> None:
    outcome = generate(elastic, *T, *S, "--dtype", dtype, "--device", "cpu")
    assert outcome.status == 0
    assert f"elastic: tiny: qwen3, {dtype} on cpu" in outcome.err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--device", "tpu", "--device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ("--dtype", "int8", "--dtype: expected 'auto' or one of float32, bfloat16, float16, got 'int8'"),
    ],
)
def test_the_embedded_model_has_no_odd_device_or_dtype(elastic, flag, value, message) -> None:
    assert refusal(generate(elastic, *T, *S, flag, value)) == message


def test_chat_without_a_template_names_the_flag_that_does_without(elastic, tmp_path: Path) -> None:
    model, tokenizer = tiny.load()
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    outcome = elastic("generate", tmp_path, "--chat", "--prompt", "3 = ?", *T, *S)
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].endswith("--raw takes prompts as they stand")
    assert elastic("generate", tmp_path, "--prompt", "3 = ?", *T, *S).status == 0


def test_at_temperature_0_no_seed_is_drawn(elastic) -> None:
    outcome = elastic("generate", "tiny", "--raw", "--prompt", PROMPT, *T, *S, "--temperature", 0)
    assert outcome.status == 0
    assert "seed" not in outcome.err


def test_the_rest_of_a_budget_has_flags(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    arguments = ("--min-thinking", 6, "--max-extensions", 2, "--extension", "so", "--on-eos", "close")
    assert generate(elastic, *T, *S, *arguments, "--json", path, "--samples", 20).status == 0
    assert {row["thinking_tokens"] for row in json.loads(path.read_text())} == {6}
    assert generate(elastic, *T, *S, "--grace", 3, "--json", path, "--samples", 20).status == 0
    assert max(row["thinking_tokens"] for row in json.loads(path.read_text())) > 6


# --json


def test_json_is_checked_before_the_model_is_loaded(elastic, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("elastic.commands.generate.load_model", lambda *_, **__: pytest.fail("loaded"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, message in (
        (tmp_path, f"--json: expected a file, got {tmp_path}, which is none"),
        (pipe, f"--json: expected a file, got {pipe}, which is none"),
        (tmp_path / "none" / "x.json", f"--json: no such directory: {tmp_path / 'none'}"),
        (Path("/proc/x.json"), "--json: cannot write into /proc: "),
    ):
        assert refusal(generate(elastic, *T, *S, "--json", path)).startswith(message)
    assert sorted(tmp_path.iterdir()) == [pipe]


def test_json_does_not_replace_the_prompts(elastic, tmp_path: Path) -> None:
    prompts, link = tmp_path / "prompts.txt", tmp_path / "link.json"
    prompts.write_text(f"{PROMPT}\n")
    link.symlink_to(prompts)
    for path in (prompts, link, tmp_path / "." / "prompts.txt"):
        line = refusal(elastic("generate", "tiny", "--prompts", prompts, *T, *S, "--json", path))
        assert line == f"--json: {path} is the file of the prompts, which it would replace"
    assert prompts.read_text() == f"{PROMPT}\n"


def test_json_is_written_through_a_link_and_leaves_nothing_else(elastic, tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    assert generate(elastic, *T, *S, "--json", link).status == 0
    assert link.is_symlink()
    assert len(json.loads(target.read_text())) == 1
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_failure_leaves_the_old_json(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    assert generate(elastic, *T, "--closing", "no marker", "--json", path).status == 2
    assert path.read_text() == "old"


# What messages call things


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("top_p: expected a number, got 0", "--top-p: expected a number, got 0"),
        ("prompt 0: thinking: too many", "prompt 1: --thinking: too many"),
        ("pass stream=True, or chat=False", "pass --stream, or --no-chat"),
        ("expected at most thinking=4, got 6", "expected at most --thinking 4, got 6"),
        ("path: no such directory", "MODEL: no such directory"),
        ("closing: 'top_p: x' found", "--closing: 'top_p: x' found"),
        ("my_top_p=3 and thinking stay", "my_top_p=3 and thinking stay"),
        ("notices: expected text", "--notice: expected text"),
    ],
)
def test_messages_name_flags(message: str, expected: str) -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--top-p", "--thinking", "--stream", "--chat", "--closing"):
        parser.add_argument(flag)
    parser.add_argument("--notice", dest="notices")
    assert in_flags(message, flags_of(parser)) == expected


def test_without_a_flag_of_two_words_other_words_stay() -> None:
    assert in_flags("out: 'a' (b); c", {"out": "--out"}) == "--out: 'a' (b); c"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("path: no such directory", "model.path: no such directory"),
        (
            "lacks some (allow_missing=True takes it)",
            "lacks some (model.allow_missing = true takes it)",
        ),
        ("problem 'a': thinking: too many", "problem 'a': budget.thinking: too many"),
        ("c.toml: [budget]: total: too few", "c.toml: [budget]: total: too few"),
        ("budget.closing: no", "budget.closing: no"),
    ],
)
def test_messages_name_keys(message: str, expected: str) -> None:
    assert in_keys(message) == expected
