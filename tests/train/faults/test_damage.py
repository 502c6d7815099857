"""A damaged or foreign checkpoint is refused by name, with what to do."""

import random
import shutil

import pytest
import torch

from elastic.data.files import CHECKSUMS, write_checksums
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train.run.checkpoint import checkpoint_paths, newest_checkpoint, save_checkpoint
from elastic.train.run.progress import Progress
from tests.train.faults.runs import fresh, train
from tests.train.tiny_run import build_model

STEP = "step-00000002"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    train(output, 2)
    return output


@pytest.fixture
def output(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def files(output):
    return sorted(path for path in (output / "checkpoints" / STEP).rglob("*") if path.is_file())


def lengths(content):
    """No byte, one, half of them, all but the last; of text the ends of lines too."""
    lines = [place + 1 for place, byte in enumerate(content[:-1]) if byte == 10][:20]
    return {0, 1, len(content) // 2, len(content) - 1, *(lines if content.isascii() else ())} - {len(content)}


def refused(output, name):
    message = rf"checkpoint .*{STEP}: .*remove the checkpoint's directory"
    with pytest.raises(ValueError, match=message) as caught:
        newest_checkpoint(output)
    assert name in str(caught.value) or CHECKSUMS in str(caught.value)


def test_every_file_cut_short_anywhere_is_refused_by_name(output):
    for path in files(output):
        content = path.read_bytes()
        for length in lengths(content.removesuffix(b"\n")):  # the list is whole without its last one
            path.write_bytes(content[:length])
            refused(output, path.name)
        path.write_bytes(content)
    assert newest_checkpoint(output).progress.step == 2


def test_every_file_with_one_other_bit_is_refused_by_name(output):
    draw = random.Random(1)
    for path in files(output):
        content = path.read_bytes()
        for place in (0, len(content) - 2, *(draw.randrange(len(content)) for _ in range(6))):
            changed = bytearray(content)
            changed[place] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=STEP):
                newest_checkpoint(output)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["model/model.safetensors", "optimizer.pt", "identity.json"])
def test_file_of_another_run_is_refused_by_name(output, tmp_path, name):
    fresh(tmp_path / "other", 3, model=build_model(initializer_range=0.03)).train()
    other = tmp_path / "other" / "checkpoints" / "step-00000003"
    shutil.copy(other / name, output / "checkpoints" / STEP / name)
    refused(output, name)


def test_file_that_is_not_listed_is_refused(output):
    (output / "checkpoints" / STEP / "model" / "more.safetensors").touch()
    refused(output, "more.safetensors is not in")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model": build_model(hidden_size=48, num_attention_heads=3)}, "shapes of the model's weights"),
        ({"model": build_model(vocab_size=len(IDS) + 3)}, "shapes of the model's weights"),
        ({"model": build_model(num_hidden_layers=3)}, "shapes of the model's weights"),
        ({"tokenizer": "other"}, "tokenizer"),
    ],
)
def test_checkpoint_of_another_model_or_tokenizer_is_refused_before_anything_is_loaded(output, options, what):
    if "tokenizer" in options:
        options = {"tokenizer": build_tokenizer()}
        options["tokenizer"].chat_template = "{{ messages }}"
    trainer = fresh(output, 4, **options)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    message = rf"{STEP} was made with other .*{what}.*choose another train.output_dir"
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def state(output, text):
    (output / "checkpoints" / STEP / "state.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 4}', r"format 4, this version reads 3; go on with the version .* wrote it, a newer one"),
        ('{"format": 2}', r"format 2, this version reads 3; go on with the version of .* that wrote it, or"),
        ('{"global_step": 500}', "state.json is damaged, missing or not of this package .*remove the"),
        ("[1]", "state.json is damaged, missing or not of this package .*remove the"),
        ('{"format": 3}', "state.json is damaged, missing or not of this package .*remove the"),
    ],
)
def test_checkpoint_of_another_version_or_package_is_refused(output, text, message):
    state(output, text)
    with pytest.raises(ValueError, match=rf"checkpoint .*{STEP}: {message}"):
        newest_checkpoint(output)


def test_checkpoint_under_another_name_is_refused(output):
    (output / "checkpoints" / STEP).rename(output / "checkpoints" / "step-00000007")
    with pytest.raises(ValueError, match=r"step-00000007: it is of step 2, .* give it its name back"):
        newest_checkpoint(output)


@pytest.mark.parametrize(
    "name", ["step-3", "step-000000030", "step-00000003 copy", "checkpoint-3", "step-0000000\u0663", ".step"]
)
def test_directories_with_other_names_are_left_alone(output, name):
    (output / "checkpoints" / name).mkdir()
    assert newest_checkpoint(output).progress.step == 2
    assert (output / "checkpoints" / name).is_dir()


def test_links_are_followed_for_reading_and_never_for_removing(output, tmp_path):
    checkpoints = output / "checkpoints"
    checkpoints.rename(tmp_path / "bigger disk")
    checkpoints.symlink_to(tmp_path / "bigger disk")
    (checkpoints / STEP).rename(tmp_path / "elsewhere")
    (checkpoints / STEP).symlink_to(tmp_path / "elsewhere")
    (checkpoints / "step-00000009").symlink_to(tmp_path / "nowhere")
    assert newest_checkpoint(output).progress.step == 2
    save_checkpoint(output, Progress(3), {}, lambda path: (path / "a").touch(), keep=1)
    assert [path.name for path in checkpoint_paths(output)] == ["step-00000003"]
    assert (tmp_path / "elsewhere" / "state.json").is_file()


def test_content_that_fits_no_model_is_refused_though_its_sums_are_right(output):
    path = output / "checkpoints" / STEP
    torch.save({"state": {}, "param_groups": []}, path / "optimizer.pt")
    write_checksums(path)
    with pytest.raises(ValueError, match=rf"{STEP} is of another model or optimizer \(.*choose another"):
        train(output, 4)
