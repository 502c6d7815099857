"""New weights in a running vLLM, and engines started in ways of their own. vLLM keeps one at a time."""

from contextlib import closing

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from elastic import Budget, RolloutEngine, Sampling, replay
from elastic.integrations.vllm import VLLMEngine
from elastic.rollout.plan.default_markers import default_markers
from elastic.train.collect.engines import open_engine
from elastic.train.run.accelerator import build_accelerator
from elastic.train.run.adapter import with_adapter
from tests.integrations.vllm.offline import preempt_often
from tests.integrations.vllm.sums import SUMS
from tests.rollout.small_models import VOCAB, make_tokenizer
from tests.train.tiny_run import build_config

LONG = [[3 + (7 * i + k) % 20 for i in range(300)] for k in range(2)]  # longer than a block of the KV cache


def small_model(tied):
    config = Qwen3Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).eval()


def difference(engine, model):
    """The largest difference between the engine's logprobs and the model's own."""
    batch = engine.generate(LONG, Budget.vanilla(8), phase="solution", sampling=Sampling(1.0, seed=2))
    ids = torch.cat([torch.tensor(batch.prompts), batch.tokens], dim=1)
    with torch.no_grad():
        logprobs = model(ids).logits[:, len(LONG[0]) - 1 : -1].log_softmax(-1)
    wanted = logprobs.gather(2, batch.tokens[..., None])[..., 0]
    return (wanted - batch.full_logprobs)[batch.sampled].abs().max().item()


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_after_a_refresh_logprobs_are_those_of_the_new_weights(vllm, tied):
    """Queries, keys and values are one matrix there; a prompt's old keys are in the prefix cache."""
    model = small_model(tied)
    with closing(VLLMEngine(model, make_tokenizer(), max_rows=4)) as engine:
        assert difference(engine, model) < 1e-5
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        assert difference(engine, model) > 1e-2  # of the old ones
        engine.refresh()
        assert difference(engine, model) < 1e-5


def test_a_model_by_its_path_has_the_same_rows(vllm, tiny):
    prompts = [f"{sum_} <think>" for sum_ in SUMS]
    call = {"budget": Budget(12, 9), "sampling": Sampling(1.0, seed=3), "samples_per_prompt": 2}
    own = RolloutEngine(*tiny).generate(prompts, **call)
    with closing(VLLMEngine("tiny", max_rows=8)) as engine:
        batch = engine.generate(prompts, **call)
        with pytest.raises(ValueError, match="refresh: expected an engine of a loaded model"):
            engine.refresh()
    assert torch.equal(batch.tokens, own.tokens)
    assert (engine.name, engine.model, engine.limits.eos_ids) == ("tiny", None, own.eos_ids)


def test_without_end_tokens_rows_end_at_their_budgets(vllm, tiny):
    prompts = [f"{sum_} <think>" for sum_ in SUMS]
    call = {"budget": Budget(6, 20), "sampling": Sampling(1.0, seed=3)}
    own = RolloutEngine(*tiny, eos_ids=()).generate(prompts, **call)
    with closing(VLLMEngine(*tiny, max_rows=8, eos_ids=())) as engine:
        batch = engine.generate(prompts, **call)
    assert torch.equal(batch.tokens, own.tokens)
    assert torch.equal(batch.finish_reason, own.finish_reason)
    assert set(batch.solution_tokens.tolist()) == {20}


def test_sources_are_recorded_that_tokens_do_not_show_and_outlive_preemption(vllm, tiny):
    """Few blocks; and closings in the place of an EOS (R6), which ids alone contradict."""
    budgets = [Budget(30 + i, 8, closing="wait ok so we have </think> so answer is") for i in range(12)]
    prompts = [f"{sum_} <think>" for sum_ in SUMS]
    call = {"budget": budgets, "samples_per_prompt": 3, "sampling": Sampling(5.0), "seeds": range(12)}
    own = RolloutEngine(*tiny).generate(prompts, **call)
    blocks = {"block_size": 32, "num_gpu_blocks_override": 10}
    with closing(VLLMEngine(*tiny, max_rows=12, max_length=128, **blocks)) as engine:
        preempted = preempt_often(engine._llm)
        batch = engine.generate(prompts, **call)
        assert len(preempted) > 12
    for name in ("tokens", "source", "phase", "finish_reason"):
        assert torch.equal(getattr(batch, name), getattr(own, name)), name
    rows = [row[:n] for row, n in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)]
    with pytest.raises(ValueError, match="no row under"):
        replay(rows, budgets, batch.markers, tokenizer=tiny[1], eos_ids=list(batch.eos_ids))


def test_rollouts_of_an_adapter_are_those_of_its_merged_weights(vllm, tmp_path):
    pytest.importorskip("peft")
    model = small_model(tied=False)
    table = {"rank": 4, "alpha": 8}
    config = build_config(tmp_path, rollout={"engine": "vllm", "max_rows": 4}, adapter=table)
    adapted, tokenizer = with_adapter(model, config), make_tokenizer()
    engine, refresh = open_engine(
        config, adapted, tokenizer, default_markers(tokenizer), build_accelerator(config)
    )
    with closing(engine):
        refresh()
        assert difference(engine, adapted) < 1e-5
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        assert difference(engine, adapted) > 1e-2  # of the old ones
        refresh()
        assert difference(engine, adapted) < 1e-4
