"""Model directories as users have them when something went wrong: one line that names the file, status 2."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from elastic.data import hub_access
from elastic.models import model_files, tiny

GARBAGE = bytes(range(255, 0, -1)) * 16
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 2498560\n"


def changed(file: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **values}))

    return change


def written(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content) and None


def cut(file: str, last: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:last]) and None


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_of_the_shards(folder: Path) -> None:
    without_weights(folder)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled_garbage(folder: Path) -> None:
    without_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(GARBAGE)


TEMPLATE = "chat_template.jinja"
CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}

BROKEN = {
    "config cut off": (cut("config.json", 20), r"config\.json' is not JSON"),
    "config of bytes": (written("config.json", b"\xff\xfe{}"), r"config\.json' is not JSON"),
    "config is a list": (
        written("config.json", b"[1]"),
        r"config\.json of .*: expected an object",
    ),
    "config is empty": (written("config.json", b"{}"), r"config\.json of .* cannot be read: .*model_type"),
    "unknown architecture": (changed("config.json", model_type="quux"), "model_type 'quux' is unknown to"),
    "code of its own": (changed("config.json", model_type="own", auto_map=CODE), "code of its own"),
    "a size in words": (changed("config.json", hidden_size="many"), r"config\.json of .*hidden_size.*'many'"),
    "pad id too large": (changed("config.json", pad_token_id=39), "pad_token_id: .* vocab_size = 39, got 39"),
    "other sizes": (
        changed("config.json", hidden_size=64),
        r"other shapes .*\(39 x 128, .* 39 x 64",
    ),
    "other heads": (changed("config.json", num_attention_heads=3), "other shapes .* and 4 more"),
    "generation config cut off": (cut("generation_config.json", 9), r"generation_config\.json' is not JSON"),
    "eos in words": (changed("generation_config.json", eos_token_id="</s>"), "eos_token_id: .* got '</s>'"),
    "eos too large": (changed("generation_config.json", eos_token_id=[2, 99]), r"0 \.\. 38.* got \[99\]"),
    "tokenizer cut off": (cut("tokenizer.json", 500), r"tokenizer\.json' is not JSON: .*line 27"),
    "tokenizer without parts": (written("tokenizer.json", b"{}"), "the tokenizer of .* cannot be read: "),
    "tokenizer config cut off": (cut("tokenizer_config.json", 9), r"tokenizer_config\.json' is not JSON"),
    "pad token of its own": (
        changed("tokenizer_config.json", pad_token="<new>"),
        "40 tokens, the model only",
    ),
    "weights cut off": (cut("model.safetensors", -9), "the weights of .* are damaged: "),
    "weights empty": (written("model.safetensors", b""), "the weights of .* are damaged: "),
    "weights of noise": (written("model.safetensors", GARBAGE), "the weights of .* are damaged: "),
    "weights not fetched": (
        written("model.safetensors", POINTER),
        "is a Git LFS pointer",
    ),
    "weights not a number": (not_a_number, "logits hold NaN"),
    "no weights": (without_weights, r"the weights of .* cannot be read: .*model\.safetensors"),
    "a shard is missing": (half_of_the_shards, "the weights of .*model-00001-of-00002"),
    "pickled noise": (pickled_garbage, "the weights of .* cannot be read: "),
    "template cut off": (written(TEMPLATE, b"{{ messages"), "chat template fails: TemplateSyntaxError"),
    "template without a name": (written(TEMPLATE, b"{{ a.b.c }}"), "UndefinedError: 'a' is undefined; --raw"),
    "template that refuses": (written(TEMPLATE, b"{{ raise_exception('no users') }}"), "no users; --raw"),
    "template that adds text": (
        written(TEMPLATE, b"{{ messages[0].content + 1 }}"),
        "TypeError.*--raw",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(tiny.CHECKPOINT, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_model_is_one_line_that_names_it(elastic, copy: Path, kind: str) -> None:
    change, message = BROKEN[kind]
    change(copy)
    outcome = elastic("generate", copy, "--prompt", "a 3 b + 4 = ?", "--thinking", 2, "--solution", 2)
    assert outcome.status == 2
    assert not outcome.out
    *said, error = outcome.err.splitlines()
    assert error.startswith("elastic: error: ")
    assert re.search(message, error), error
    assert len(error) < 600
    assert said in ([], [line for line in said if "attention sdpa" in line])  # loading itself went well


@pytest.mark.parametrize(
    "change",
    [
        changed("config.json", pad_token_id=None),
        changed("config.json", pad_token_id=-1),
        changed("tokenizer_config.json", pad_token=None),
        changed("tokenizer_config.json", pad_token="<eos>"),
        changed("generation_config.json", eos_token_id=None),
    ],
)
def test_a_model_without_padding_or_with_an_odd_one_is_served(elastic, copy: Path, change) -> None:
    arguments = ("--prompt", "a 3 b + 4 = ?", "--thinking", 3, "--solution", 9, "--seed", 1, "--samples", 3)
    expected = elastic("generate", copy, *arguments)
    change(copy)
    outcome = elastic("generate", copy, *arguments)
    assert outcome == expected
    assert outcome.status == 0


def test_stderr_holds_one_line_about_a_model_and_no_bars(elastic, copy: Path) -> None:
    outcome = elastic("generate", copy, "--prompt", "a 3 b + 4 = ?", "--solution", 2, "--seed", 1)
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"elastic: {copy}: qwen3, float32 on cpu, attention sdpa")


def test_a_training_run_names_the_key_of_its_file(elastic, copy: Path, tmp_path: Path) -> None:
    cut("model.safetensors", -9)(copy)
    path = tmp_path / "c.toml"
    path.write_text(
        f'[model]\npath = "{copy}"\n[data]\nsource = "tiny"\ncount = 4\n'
        f'[train]\noutput_dir = "{tmp_path / "run"}"\n'
    )
    outcome = elastic("train", path)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"elastic: error: model.path: the weights of '{copy}' are damaged")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub_access, "get_session", lambda: type("Session", (), {"head": refused}))
    monkeypatch.setattr(hub_access.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "gpt2", "tinny"])
def test_a_hub_name_without_a_network_is_refused_at_once_with_what_to_do(elastic, no_network, name) -> None:
    start = time.monotonic()
    outcome = elastic("generate", name, "--prompt", "x")
    assert time.monotonic() - start < 3
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert f"no directory '{name}'" in line
    assert "cannot be reached: OSError: Name or service not known" in line
    assert f"hf download {name} --local-dir DIRECTORY" in line


def test_a_hub_that_is_switched_off_is_not_asked(elastic, monkeypatch) -> None:
    monkeypatch.setattr(hub_access.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_access, "get_session", lambda: pytest.fail("asked"))
    outcome = elastic("generate", "Qwen/Qwen3-0.6B", "--prompt", "x")
    assert outcome.status == 2
    assert "HF_HUB_OFFLINE is set" in outcome.err


@pytest.mark.parametrize("reachable", [True, False])
def test_files_of_a_hub_name_are_asked_for_where_the_hub_is(monkeypatch, reachable: bool) -> None:
    """Without it they may still come from the cache."""
    monkeypatch.setattr(model_files, "hub_obstacle", lambda: "" if reachable else "no network")
    assert model_files.find_files("owner/name") == {"local_files_only": not reachable}


def test_a_name_below_a_directory_of_here_is_no_hub_name(elastic, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    outcome = elastic("generate", "models/nowhere", "--prompt", "x")
    assert outcome.status == 2
    assert outcome.err == "elastic: error: MODEL: no such directory: 'models/nowhere'\n"


@pytest.mark.parametrize("name", ["", "a b", "owner/model/part", "-x"])
def test_what_can_be_no_hub_name_is_a_missing_directory(elastic, name: str) -> None:
    outcome = elastic("generate", "--prompt", "x", "--", name)
    assert outcome.status == 2
    assert outcome.err == f"elastic: error: MODEL: no such directory: '{name}'\n"
