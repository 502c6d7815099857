"""A user's mistake is one line and status 2, before any work; ours keeps its traceback."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from elastic.commands import cli


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("elastic: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_an_unknown_model_directory_is_named(elastic, tmp_path: Path) -> None:
    outcome = elastic("generate", tmp_path / "nowhere", "--prompt", "hello")
    assert outcome.status == 2
    assert str(tmp_path / "nowhere") in one_line(outcome.err)


def test_a_folder_that_the_demo_cannot_use_is_named(elastic, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("[]")
    outcome = elastic("demo", "--out", tmp_path)
    assert outcome.status == 2
    assert f"{tmp_path / 'demo.json'}" in one_line(outcome.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--thinking", "-1"), ("thinking", "-1")),
        (("--thinking", "8", "--solution", "0"), ("solution", "0")),
        (("--thinking", "8", "--solution", "8", "--total", "8"), ("total", "8")),
        (("--temperature", "-1"), ("temperature", "-1")),
        (("--top-p", "0"), ("--top-p", "0")),
        (("--samples", "0"), ("samples", "0")),
        (("--thinking", "8", "--closing", "no marker here"), ("closing", "no marker here")),
        (("--thinking", "4", "--solution", "5000"), ("5000",)),
        (("--json", "/nonexistent/folder/out.json"), ("/nonexistent/folder",)),
    ],
)
def test_a_bad_argument_is_named_with_its_value(elastic, arguments, words) -> None:
    outcome = elastic("generate", "tiny", "--raw", "--prompt", "<bos> a 1 b + 2 = ? <think>", *arguments)
    assert outcome.status == 2
    line = one_line(outcome.err)
    for word in words:
        assert word in line
    assert not outcome.out


def test_a_budget_that_is_no_number_is_a_usage_error(elastic) -> None:
    outcome = elastic("generate", "tiny", "--prompt", "x", "--thinking", "many")
    assert outcome.status == 2
    assert "expected a number of tokens or 'none', got 'many'" in outcome.err


@pytest.mark.parametrize("content", ["", "\n  \n\n"])
def test_an_empty_prompts_file_is_refused(elastic, tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(content)
    outcome = elastic("generate", "tiny", "--prompts", path)
    assert outcome.status == 2
    assert f"{path}: holds no prompt" in one_line(outcome.err)


def test_a_missing_prompts_file_is_named(elastic, tmp_path: Path) -> None:
    outcome = elastic("generate", "tiny", "--prompts", tmp_path / "missing.txt")
    assert outcome.status == 2
    assert "missing.txt" in one_line(outcome.err)


def test_a_prompts_file_that_is_no_text_is_refused(elastic, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xff\xfe\x00")
    outcome = elastic("generate", "tiny", "--prompts", path)
    assert outcome.status == 2
    assert "not UTF-8" in one_line(outcome.err)


def test_a_config_with_an_unknown_key_is_refused_before_anything_loads(
    elastic, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("elastic.train.train_from_config", lambda config: pytest.fail("ran"))
    path = tmp_path / "train.toml"
    path.write_text(
        '[model]\npath = "tiny"\nsise = 3\n[data]\nsource = "tiny"\ncount = 4\n[train]\noutput_dir = "x"\n'
    )
    outcome = elastic("train", path)
    assert outcome.status == 2
    assert "sise" in one_line(outcome.err)


def test_a_missing_config_is_named(elastic, tmp_path: Path) -> None:
    outcome = elastic("train", tmp_path / "missing.toml")
    assert outcome.status == 2
    assert "missing.toml" in one_line(outcome.err)


def test_traceback_shows_where_an_error_was_found(elastic, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        elastic("generate", tmp_path / "nowhere", "--prompt", "hello", "--traceback")


def test_the_environment_variable_does_the_same(elastic, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ELASTIC_TRACEBACK", "1")
    with pytest.raises(ValueError, match="nowhere"):
        elastic("generate", tmp_path / "nowhere", "--prompt", "hello")


def test_an_error_of_ours_keeps_its_traceback(elastic, monkeypatch) -> None:
    def broken(request: object, out: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("elastic.commands.generate.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        elastic("generate", "tiny", "--prompt", "x")


def test_a_missing_optional_package_is_named_with_its_extra(elastic, monkeypatch) -> None:
    def missing(request: object, out: object) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr("elastic.commands.generate.run", missing)
    outcome = elastic("generate", "tiny", "--prompt", "x")
    assert outcome.status == 2
    assert one_line(outcome.err).endswith("pip install 'elastic[eval]'")


def test_interrupting_gives_one_line_and_the_shells_status(elastic, monkeypatch) -> None:
    def interrupted(request: object, out: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("elastic.commands.generate.run", interrupted)
    outcome = elastic("generate", "tiny", "--prompt", "x")
    assert outcome.status == 130
    assert outcome.err == "elastic: interrupted\n"


def test_no_command_and_an_unknown_one_are_usage_errors(elastic) -> None:
    for outcome in (elastic(), elastic("evaluate")):
        assert outcome.status == 2
        assert one_line(outcome.err).endswith("; see elastic --help")


def test_version_and_help_need_no_torch() -> None:
    code = "import sys; from elastic.commands.cli import main\n"
    code += "try: main(sys.argv[1:])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    for arguments, shown in (
        (["--version"], "elastic "),
        (["--help"], "usage: "),
        (["train", "--help"], "usage: "),
    ):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(shown)


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "elastic", "info", "--nonsense"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == "elastic: error: unrecognized arguments: --nonsense; see elastic --help\n"


def test_a_reader_that_has_enough_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m elastic info | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.returncode == 128 + 13  # as if SIGPIPE had ended it
    assert result.stderr == ""


@pytest.mark.parametrize(("launched", "shown"), [("false", False), ("true", True)])
def test_warnings_of_deepspeed_are_shown_where_it_is_used_only(monkeypatch, launched, shown):
    logger = logging.getLogger("DeepSpeed")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", launched)
    cli._quiet_imports()
    levels = {"warning": logging.WARNING, "error": logging.ERROR}
    records = {name: logger.makeRecord("", level, "", 0, name, (), None) for name, level in levels.items()}
    assert bool(logger.filter(records["warning"])) is shown
    assert logger.filter(records["error"])
