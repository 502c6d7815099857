"""What a plan counts for an adapter: its own gradients and optimizer states, no reference, merged weights."""

import pytest
from peft import LoraConfig
from transformers import Qwen2Config

from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train.planning.run_plan import plan_run
from tests.train.adapters.runs import lora_config

# Of LoRA of rank 4 on all linear modules: r (in + out) of q and o, k and v, gate, up and down, in 3 layers.
TRAINED = 3 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 160))
ADAPTED = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)  # the weights below it


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A directory with config.json and a tokenizer, without weights."""
    path = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = Qwen2Config(
        vocab_size=640,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"],
        **sizes,
    )
    config.save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return path


def plan(path, tmp_path, **tables):
    tables["model"] = {"path": str(path), "device": "cpu"} | tables.get("model", {})
    return plan_run(lora_config(tmp_path, **tables)).memory


def test_gradients_and_moments_are_those_of_the_adapter(model, tmp_path):
    memory = plan(model, tmp_path, loss={"kl_coef": 0.1}, model={"dtype": "bfloat16"})
    assert memory.gradients == 4 * TRAINED
    assert memory.optimizer == pytest.approx(2 * 4 * TRAINED, rel=0.01)
    assert memory.reference == memory.rollout_copy == 0
    whole = plan(model, tmp_path, loss={"kl_coef": 0.1}, adapter={"rank": 0})
    assert whole.reference > 0
    assert whole.gradients > 10 * memory.gradients
    assert memory.activations > 0


def test_merged_rollouts_take_the_adapted_weights_once_more(model, tmp_path):
    merged = {"rollouts": "merged"}
    assert plan(model, tmp_path, adapter=merged).rollout_copy == 4 * ADAPTED
    half = plan(model, tmp_path, adapter=merged, model={"dtype": "bfloat16"})
    assert half.rollout_copy == 2 * ADAPTED


def test_a_frozen_head_has_no_gradient_in_the_loss(model, tmp_path):
    frozen, trained = (plan(model, tmp_path, adapter={"rank": rank}).loss for rank in (4, 0))
    assert trained - frozen == 640 * 64 * 4


def test_an_adapters_directory_is_planned_by_its_base_and_keeps_its_starting_values(model, tmp_path):
    adapter = tmp_path / "adapter"
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    lora.base_model_name_or_path = str(model)
    lora.save_pretrained(adapter)
    tables = {"adapter": {"rank": 0}, "loss": {"kl_coef": 0.1}, "train": {"save_every": 1}}
    found = plan_run(lora_config(tmp_path, **tables, model={"path": str(adapter), "device": "cpu"}))
    assert found.architecture.startswith("PeftModel")
    assert found.memory.gradients == found.memory.reference == found.disk.model == 4 * TRAINED
    lora.base_model_name_or_path = str(tmp_path / "nowhere")
    lora.save_pretrained(adapter)
    with pytest.raises(ValueError, match=r"no such directory: '.*nowhere'"):
        plan_run(lora_config(tmp_path, **tables, model={"path": str(adapter), "device": "cpu"}))
