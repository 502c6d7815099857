"""The embedded checkpoint: size, tokenizer, behaviour under budgets, and the script that trains it."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from elastic.data.files import check_checksums
from elastic.data.sums import END, MAX_OPERATIONS, problems
from elastic.models import tiny
from elastic.models.tiny import pretrain
from elastic.models.tiny.vocabulary import IDS, SPECIAL, WORDS

THREE_MB = 3_000_000


@pytest.fixture(scope="module")
def loaded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return tiny.load()


def test_checkpoint_is_smaller_than_three_megabytes() -> None:
    assert sum(file.stat().st_size for file in tiny.CHECKPOINT.iterdir()) < THREE_MB


def test_a_flipped_bit_in_any_file_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny.CHECKPOINT, copy)
    monkeypatch.setattr(tiny, "CHECKPOINT", copy)
    tiny.load()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"the embedded model: .*{name} is damaged"):
            tiny.load()
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)


def test_checkpoint_is_a_standard_model(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, _ = loaded
    assert model.config.model_type == "qwen3"
    assert model.dtype == torch.float32
    assert not model.training
    assert model.generation_config.eos_token_id == IDS["<eos>"]


def test_tokenizer_round_trips_and_keeps_special_tokens_readable(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    _, tokenizer = loaded
    text = "<bos> a 3 b + 4 c - 9 = ? <think> we have 3 . wait : b 7 </think> so answer is 8 <eos>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.split())
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer(text)["input_ids"] == ids  # nothing is added by itself
    every = " ".join(WORDS)
    assert tokenizer.decode(tokenizer(every)["input_ids"], skip_special_tokens=False) == every


def test_special_tokens_have_one_id_each(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    _, tokenizer = loaded
    assert [tokenizer.convert_tokens_to_ids(word) for word in SPECIAL] == list(range(len(SPECIAL)))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert len({tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}) == 3
    assert tokenizer(f"7{END}\n")["input_ids"] == [IDS["7"], IDS[END]]


def test_unknown_words_become_the_unknown_token(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    _, tokenizer = loaded
    assert tokenizer("banana 3")["input_ids"] == [IDS["<unk>"], IDS["3"]]


def sampled(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int
) -> list[str]:
    """Plain generation by transformers, prompts padded on the left."""
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    torch.manual_seed(0)
    ids = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new_tokens)
    return tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=False)


def test_model_solves_the_task_when_it_may_think_and_hardly_when_cut(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    model, tokenizer = loaded
    items = problems(48, 11, "test")
    free = sampled(model, tokenizer, [item.prompt for item in items], 400)
    solved = [tiny.reward(text, item.answer) for text, item in zip(free, items, strict=True)]
    assert sum(solved) >= 0.8 * len(items)

    thoughts = [text.split(END)[0].split() for text in free]
    assert sum(map(len, thoughts)) >= 60 * len(items)  # verbose

    budget = 16
    cut = [
        f"{item.prompt} {' '.join(thought[:budget])} {END}"
        for item, thought in zip(items, thoughts, strict=True)
    ]
    behind = sampled(model, tokenizer, cut, 20)
    solved_cut = [tiny.reward(f"{END} {text}", item.answer) for text, item in zip(behind, items, strict=True)]
    assert sum(solved_cut) <= 0.5 * len(items)


def test_pretraining_is_deterministic_and_writes_a_loadable_directory(tmp_path: Path) -> None:
    models = [pretrain.pretrain(3, seed=4, rows_per_batch=4, progress=False) for _ in range(2)]
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
    other = pretrain.pretrain(3, seed=5, rows_per_batch=4, progress=False)
    assert not torch.equal(next(models[0].parameters()), next(other.parameters()))

    out = tmp_path / "new" / "model"
    for _ in range(2):  # the second save replaces the first
        pretrain.save(models[0], out)
    check_checksums(out)
    again = AutoModelForCausalLM.from_pretrained(out)
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert AutoTokenizer.from_pretrained(out)("<think> 3")["input_ids"] == [IDS["<think>"], IDS["3"]]
    assert [path.name for path in out.parent.iterdir()] == ["model"]  # nothing half-written stays


def test_pretraining_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    pretrain.pretrain(1, rows_per_batch=2, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_pretraining_refuses_zero_steps() -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        pretrain.pretrain(0)


def test_a_cut_is_nothing_to_imitate_and_everything_else_behind_the_prompt_is() -> None:
    cut = 0
    rng = random.Random(0)
    for _ in range(300):
        ids, labels = pretrain.row(rng, 6)
        behind = ids.index(IDS["<think>"]) + 1
        end = ids.index(IDS[END])
        assert set(labels[:behind]) == {-100}
        different = [index for index in range(behind, len(ids)) if labels[index] != ids[index]]
        assert different in ([], [end])
        if different:
            assert labels[end] == -100
            cut += 1
    assert 90 < cut < 150  # 40 %


def test_batches_hold_rows_of_about_one_length_in_random_order() -> None:
    shapes = [tuple(ids.shape) for ids, _ in pretrain.batches(random.Random(0), 20, 8)]
    assert len(shapes) == 20
    assert {rows for rows, _ in shapes} == {8}
    lengths = [length for _, length in shapes[8:16]]
    assert lengths != sorted(lengths)
    assert max(lengths) > 2 * min(lengths)


def test_padding_has_no_label() -> None:
    batches = list(pretrain.batches(random.Random(1), 4, 8))
    assert any((ids == IDS["<pad>"]).any() for ids, _ in batches)
    for ids, labels in batches:
        assert (labels[ids == IDS["<pad>"]] == -100).all()
        assert (ids[labels >= 0] == labels[labels >= 0]).all()


def test_curriculum_grows_to_every_length() -> None:
    lengths = [pretrain.curriculum(step, 100) for step in range(100)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1] == MAX_OPERATIONS
