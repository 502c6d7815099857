"""`load_model` on model directories made here: what it accepts, and how it refuses the rest."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BartConfig,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

import elastic.models.loading
from elastic import load_model

FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "vocab_size": 64,
    "max_position_embeddings": 128,
}


def save_tokenizer(directory) -> None:
    vocabulary = {text: i for i, text in enumerate(["<pad>", "<eos>", "<think>", "</think>", *"ab 01?"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<think>", "</think>"],
    ).save_pretrained(directory)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, (config, model) in FAMILIES.items():
        torch.manual_seed(0)
        dtype = torch.bfloat16 if name == "llama" else torch.float32
        model(config(**SIZE)).to(dtype).save_pretrained(root / name)
        save_tokenizer(root / name)
    return root


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_directory_loads_and_runs(directories, family, capsys):
    model, tokenizer = load_model(directories / family, device="cpu")
    assert isinstance(model, FAMILIES[family][1])
    assert not model.training
    ids = torch.tensor([tokenizer("ab<think>0</think>")["input_ids"]])
    assert ids.tolist() == [[4, 5, 2, 7, 3]]
    with torch.no_grad():
        assert model(ids).logits.isfinite().all()
    line = capsys.readouterr().err
    assert "attention sdpa (flash-attn needs a CUDA device" in line
    assert line.count("elastic:") == 1


def test_dtype_auto_is_float32_on_the_cpu_and_names_are_honoured(directories):
    assert load_model(str(directories / "llama"), device="cpu")[0].dtype == torch.float32
    for dtype in ("bfloat16", torch.bfloat16):
        assert load_model(directories / "qwen3", device="cpu", dtype=dtype)[0].dtype == torch.bfloat16


def test_an_explicit_attention_is_honoured(directories, capsys):
    model, _ = load_model(directories / "qwen3", device="cpu", attention="eager")
    assert model.config._attn_implementation == "eager"
    assert "attention eager (asked for)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"dtype": "half"},
            ValueError,
            "dtype: expected 'auto' or one of float32, bfloat16, float16, got 'half'",
        ),
        ({"dtype": torch.int8}, ValueError, "dtype"),
        ({"dtype": 32}, TypeError, "dtype"),
        ({"device": "tpu"}, ValueError, "device: expected"),
        ({"device": "meta"}, ValueError, "device: expected"),
        (
            {"attention": "flash"},
            ValueError,
            "attention: expected one of auto, flash_attention_2, sdpa, eager",
        ),
        ({"attention": None}, TypeError, "attention"),
        ({"attention": "flash_attention_2", "device": "cpu"}, ValueError, "flash-attn needs a CUDA device"),
    ],
)
def test_an_unknown_or_impossible_choice_is_refused_with_its_reason(directories, keywords, error, message):
    with pytest.raises(error, match=message):
        load_model(directories / "qwen3", **keywords)


def test_asking_for_cuda_where_there_is_none_says_so(directories, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device: 'cuda' was asked for, but"):
        load_model(directories / "qwen3", device="cuda")


def test_a_cuda_index_that_does_not_exist_is_refused(directories, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="device: 'cuda:2' was asked for, but there are 2"):
        load_model(directories / "qwen3", device="cuda:2")


# The choice itself needs no GPU: it is a function of device, dtype, model class and installed packages.
@pytest.mark.parametrize(
    ("dtype", "installed", "expected"),
    [
        (torch.bfloat16, True, ("flash_attention_2", "flash-attn is installed")),
        (torch.float16, True, ("flash_attention_2", "flash-attn is installed")),
        (torch.float32, True, (None, "flash-attn needs bfloat16 or float16")),
        (torch.bfloat16, False, (None, "flash-attn is not installed")),
    ],
)
def test_flash_attention_is_chosen_only_where_it_can_run(monkeypatch, dtype, installed, expected):
    monkeypatch.setattr(elastic.models.loading, "is_flash_attn_2_available", lambda: installed)
    monkeypatch.setattr(elastic.models.loading, "import_module", lambda name: name)
    device = torch.device("cuda")
    assert elastic.models.loading._check_attention("auto", device, dtype, Qwen3ForCausalLM) == expected
    if expected[0] is None:
        with pytest.raises(ValueError, match=expected[1]):
            elastic.models.loading._check_attention("flash_attention_2", device, dtype, Qwen3ForCausalLM)


def test_flash_attention_that_cannot_be_imported_is_reported(monkeypatch):
    def broken(name):
        raise ImportError("undefined symbol")

    monkeypatch.setattr(elastic.models.loading, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(elastic.models.loading, "import_module", broken)
    choice, reason = elastic.models.loading._check_attention(
        "auto", torch.device("cuda"), torch.bfloat16, Qwen3ForCausalLM
    )
    assert choice is None
    assert "cannot be imported: undefined symbol" in reason


def test_a_missing_directory_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(ValueError, match="path: no such directory"):
            load_model(path)


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json, so it is no Hugging Face model directory$"):
        load_model(tmp_path)
    (tmp_path / "model").mkdir()  # as in a checkpoint
    with pytest.raises(ValueError, match=r"holds no config\.json.*/model' may be meant"):
        load_model(tmp_path)


def test_a_directory_without_tokenizer_is_refused(directories, tmp_path):
    shutil.copytree(directories / "qwen3", tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("config", [T5Config, BartConfig])
def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tmp_path, config):
    config().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="encoder-decoder"):
        load_model(tmp_path)


def test_a_model_without_causal_head_is_refused(tmp_path, monkeypatch):
    BertConfig().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"bert"', '"clip"'))
    with pytest.raises(ValueError, match="clip has no causal language model"):
        load_model(tmp_path)


@pytest.fixture
def edited(directories, tmp_path):
    """edited(change): a copy of the qwen3 directory whose weights were changed in place."""

    def edit(change, family="qwen3"):
        shutil.copytree(directories / family, tmp_path / "model")
        file = tmp_path / "model" / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})
        return tmp_path / "model"

    return edit


def without_first_layer(weights):
    for name in [name for name in weights if ".layers.0." in name]:
        del weights[name]


def test_missing_weights_are_an_error_that_names_the_first_of_them(edited):
    path = edited(without_first_layer)
    with pytest.raises(ValueError, match=r"lacks weights, .*layers\.0\.input_layernorm\.weight.* and 7 more"):
        load_model(path, device="cpu")


def test_weights_the_model_does_not_know_are_an_error_that_names_them(edited):
    path = edited(lambda weights: weights.update({"value_head.weight": torch.ones(1, 32)}))
    with pytest.raises(ValueError, match=r"Qwen3ForCausalLM does not know, .*: value_head\.weight \(allow"):
        load_model(path, device="cpu")


def test_allow_missing_takes_an_incomplete_checkpoint_and_says_what_is_random(edited, capsys):
    path = edited(lambda weights: weights.pop("model.norm.weight"))
    model, _ = load_model(path, device="cpu", allow_missing=True)
    assert model.model.norm.weight.isfinite().all()
    said = capsys.readouterr().err
    assert said.count("lacks weights, which would be random: model.norm.weight") == 1
    assert said.count("elastic: '") == 1


@pytest.mark.parametrize("allow_missing", [False, True])
def test_weights_of_another_shape_are_an_error_with_both_shapes(edited, allow_missing):
    path = edited(lambda weights: weights.update({"model.norm.weight": torch.ones(16)}))
    with pytest.raises(ValueError, match=r"model\.norm\.weight \(16, the model's is 32\)"):
        load_model(path, device="cpu", allow_missing=allow_missing)


def test_tied_weights_and_keys_the_architecture_ignores_are_no_fault(tmp_path, capsys):
    model = LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert "lm_head.weight" not in weights
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # old checkpoints have it
    save_file(weights, file, metadata={"format": "pt"})
    loaded, _ = load_model(tmp_path, device="cpu")
    assert torch.equal(loaded.lm_head.weight, model.model.embed_tokens.weight)
    assert "lacks" not in capsys.readouterr().err


def test_weights_that_cannot_be_read_are_an_error_that_names_the_directory(directories, tmp_path):
    shutil.copytree(directories / "qwen3", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"the weights of '.*model' are damaged"):
        load_model(tmp_path / "model", device="cpu")
