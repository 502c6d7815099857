"""Sets on the hub and directories, without a network: layouts, what the cache has, and a hub out of reach."""

import importlib.util
import json

import datasets
import huggingface_hub.constants
import pyarrow
import pytest
from pyarrow import parquet

from elastic.data import Problem, hub_access, load
from elastic.data.loading import check_source

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]
PROBLEMS = [Problem("1 + 1?", "2", "d-0", "d"), Problem("2 + 2?", "4", "d-1", "d")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def asked(monkeypatch):
    """How often the hub was asked; it never answers."""
    calls = []

    class Session:
        def head(self, url, timeout):
            calls.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr(hub_access, "get_session", Session)
    return calls


def test_save_to_disk_is_read_back(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "d")
    assert load(tmp_path / "d") == PROBLEMS
    with pytest.raises(ValueError, match="is one split, so split = 'test' names none"):
        load(tmp_path / "d", split="test")


def test_a_directory_of_several_splits_needs_to_know_which(tmp_path):
    parts = {name: datasets.Dataset.from_list([row]) for name, row in zip(("a", "b"), ROWS, strict=True)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    assert load(tmp_path / "d", split="b") == [Problem("2 + 2?", "4", "d-0", "d")]
    with pytest.raises(ValueError, match="has the splits a, b; say which with split"):
        load(tmp_path / "d")
    with pytest.raises(ValueError, match="has no split 'c', only a, b"):
        load(tmp_path / "d", split="c")


@pytest.mark.parametrize("layout", ["data/test-00000-of-00001.parquet", "test.jsonl", "test/part.parquet"])
def test_splits_are_known_by_the_names_of_a_snapshots_files(tmp_path, layout):
    path = tmp_path / "d" / layout
    path.parent.mkdir(parents=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert load(tmp_path / "d") == load(tmp_path / "d", split="test") == PROBLEMS


def test_a_bad_row_of_a_directory_is_named(tmp_path):
    datasets.Dataset.from_list([*ROWS, {"question": "?", "answer": ""}]).save_to_disk(tmp_path / "d")
    with pytest.raises(ValueError, match=r"d row 2, field 'answer': is empty"):
        load(tmp_path / "d")


def test_an_empty_directory_is_one_line(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match=r"the set '.*d' cannot be read: ") as caught:
        load(tmp_path / "d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/name", "owner/name:config", "math500"])
def test_a_hub_out_of_reach_says_so_once_and_what_to_do(asked, name):
    with pytest.raises(ValueError, match="not in the local cache, and the hub is out of reach") as caught:
        load(name)
    message = str(caught.value)
    assert f"copy the cache ({datasets.config.HF_DATASETS_CACHE})" in message
    assert "hf download --repo-type dataset" in message
    assert "Name or service not known" in message
    assert "\n" not in message
    assert len(asked) == 1


def test_offline_the_hub_is_not_asked(asked, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"out of reach \(HF_HUB_OFFLINE is set\)"):
        load("owner/name")
    assert asked == []


def test_the_cache_is_read_before_the_hub_is_asked(asked, monkeypatch):
    seen = []

    def cached(name, config):
        seen.append((name, config, huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", cached)
    found = load("owner/name:main")
    assert [problem.prompt for problem in found] == ["1 + 1?", "2 + 2?"]
    assert (found[1].id, found[1].source) == ("owner/name:main-1", "owner/name:main")
    assert seen == [("owner/name", "main", True, True)]
    assert asked == []
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_no_is_quoted(monkeypatch):
    def refuse(name, config):
        raise FileNotFoundError(f"Dataset '{name}' doesn't exist\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr("elastic.data.hub_access.hub_obstacle", lambda: "")
    with pytest.raises(ValueError, match=r"'owner/name' cannot be read: FileNotFoundError: .* exist on"):
        load("owner/name")


@pytest.mark.parametrize("name", ["math500", "owner/name"])
def test_without_datasets_the_extra_is_named_before_anything_is_read(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=rf"data '{name}' needs the package datasets: pip install"):
        check_source(name)


@pytest.mark.parametrize("name", ["owner", "a/b/c", "./a/b", "~/data", "owner/name.jsonl", "owner /name"])
def test_what_no_hub_can_have_is_a_missing_file(name):
    with pytest.raises(FileNotFoundError, match="is neither a file nor a directory nor one of the sets"):
        check_source(name)


def test_near_names_come_first():
    with pytest.raises(FileNotFoundError, match="one of the sets: did you mean deepscaler"):
        check_source("deepscalar")
