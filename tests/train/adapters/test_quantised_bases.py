"""Bases of 4 and 8 bits by bitsandbytes: what is trained, what is refused."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from elastic import load_model
from tests.train.adapters.runs import adapted, base_directory
from tests.train.tiny_run import build_config, lines, run

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Blocks of 4 bits hold 64 numbers: the random model's 32 are too few."""
    sizes = {"hidden_size": 64, "intermediate_size": 64}
    return base_directory(tmp_path_factory.mktemp("base"), initializer_range=0.1, **sizes)


def quantised(base, **options):
    config = BitsAndBytesConfig(**options)
    return adapted(
        AutoModelForCausalLM.from_pretrained(
            base, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
        )
    )


def test_an_adapter_over_4_bits_is_trained_and_resumed_to_the_bit_but_not_loaded_over_the_whole_base(
    base, tmp_path
):
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    for output, ends in (("whole", [4]), ("parts", [2, 4])):
        for steps in ends:
            config = build_config(
                tmp_path / output,
                train={"steps": steps, "save_every": 2},
                loss={"kl_coef": 0.01},
                optim={"lr": 0.05},
            )
            run(config, model=quantised(base, **four))
    whole, parts = (
        load_file(tmp_path / o / "final" / "adapter_model.safetensors") for o in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(tensor.any() for name, tensor in whole.items() if "lora_B" in name)
    assert lines(tmp_path / "whole" / "metrics.jsonl")[0]["kl"] == 0
    with pytest.raises(ValueError, match="was made for another base model"):
        load_model(tmp_path / "whole" / "final", device="cpu")
    merged = build_config(tmp_path / "merged", adapter={"merge": True})
    with pytest.raises(ValueError, match=r"adapter.merge: .*the weight of 'model.layers.0.*' is quantised"):
        run(merged, model=quantised(base, **four))


def test_8_bits_are_refused_where_rows_of_a_batch_change_each_other(base, tmp_path):
    # By LLM.int8's threshold a column with one large number is computed in 16 bits for all rows.
    with pytest.raises(ValueError, match=r"cannot be trained: .*completions of one batch see each other"):
        run(build_config(tmp_path / "a"), model=quantised(base, load_in_8bit=True, llm_int8_threshold=1.5))
    run(
        build_config(tmp_path / "b", train={"steps": 1}, optim={"lr": 0.05}),
        model=quantised(base, load_in_8bit=True, llm_int8_threshold=0.0),
    )
    assert (tmp_path / "b" / "final" / "adapter_model.safetensors").is_file()
