"""What a plan says an update takes, against real micro-batches of long rows through `Policy.backward`.

The estimate may not be below what is really there at a time, and at most a tenth above. Every tensor is seen
but the head's chunk of logits, which the op keeps to itself: small here, it is never the most.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, Qwen2Config

from elastic.models.modes import recompute_activations
from elastic.models.offload import Offload
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train.collect.experience import Experience
from elastic.train.planning.memory import Memory
from elastic.train.planning.peak import PeakMemory
from elastic.train.planning.run_plan import plan_run
from elastic.train.planning.text import text
from elastic.train.update.policy import Policy
from elastic.train.update.stats import UpdateStats
from tests.train.tiny_run import build_config

VOCAB, HIDDEN, LAYERS, CHUNK = 2048, 64, 3, 512
LEVERS: dict[str, dict[str, Any]] = {
    "none": {},
    "checkpointing": {"gradient_checkpointing": True},
    "offload": {"gradient_checkpointing": True, "offload_activations": True},
}
LEAST_SHARE = 0.9  # of the estimate that is really there


def small() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16384,
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
        pad_token_id=IDS["<pad>"],
        tie_word_embeddings=False,
    )


def planned(directory: Path, tokens: int, mixed: str, lever: str, linear: str) -> Memory:
    """Of a run whose rows have so many tokens, one to a micro-batch."""
    small().save_pretrained(directory / "model")
    build_tokenizer().save_pretrained(directory / "model")
    chunk = {"linear_chunk_tokens": CHUNK} if linear == "on" else {}
    config = build_config(
        directory / "run",
        model={"path": str(directory / "model"), **LEVERS[lever]},
        budget={"thinking": tokens - 6, "solution": 5},  # and the end marker
        train={"mixed_precision": mixed, "micro_batch_tokens": 1},
        loss={"linear": linear, **chunk},
    )
    return plan_run(config).memory


def real(tokens: int, packed: int, mixed: str, lever: str, linear: str) -> tuple[int, int]:
    """Most bytes of a micro-batch of one row, on the device and on the host."""
    accelerator = Accelerator(cpu=True, mixed_precision=mixed)
    model = AutoModelForCausalLM.from_config(small(), dtype=torch.float32).eval()
    prepared = accelerator.prepare(model)
    offload, hosts = Offload(), []
    if lever != "none":
        recompute_activations(model, offload if lever == "offload" else None)
    config = build_config(Path("unused"), loss={"linear": linear}).loss.following(linear_chunk_tokens=CHUNK)
    policy = Policy(prepared, accelerator, config, temperature=1.0, max_length=None)
    model.model.norm.register_forward_hook(lambda *_: hosts.append(offload.host_bytes))
    old = [torch.full((tokens,), -7.0)]
    rows = Experience(
        prompts=[[1] * (packed - tokens)],
        prompt_of=[0],
        completions=[torch.arange(tokens) % VOCAB],
        mask=[torch.ones(tokens, dtype=torch.bool)],
        rollout_logprobs=old,
        advantages=torch.ones(1),
        old_logprobs=old,
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    known = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    with PeakMemory(known, lambda: offload.host_bytes) as memory:
        policy.backward(rows, tokens, 1, UpdateStats())
    return memory.peak, max(hosts)


@pytest.fixture(autouse=True)
def precisions() -> Any:
    """accelerate keeps one in a process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.parametrize(
    ("tokens", "lever", "mixed", "linear"),
    [
        *((1536, lever, mixed, "on") for lever in LEVERS for mixed in ("bf16", "no")),
        *((1024, lever, mixed, "off") for lever in LEVERS for mixed in ("bf16", "no")),
        (4096, "offload", "bf16", "on"),
    ],
)
def test_the_plan_of_a_long_row_is_what_it_takes(
    tmp_path: Path, tokens: int, lever: str, mixed: str, linear: str
) -> None:
    memory = planned(tmp_path, tokens, mixed, lever, linear)
    estimate = memory.updates - memory.held
    taken, host = real(tokens, memory.micro_batch_tokens, mixed, lever, linear)
    assert LEAST_SHARE * estimate < taken < estimate
    assert memory.on_host == host


def test_levers_take_less_by_plan(tmp_path: Path) -> None:
    plans = [planned(tmp_path, 1024, "bf16", lever, "on") for lever in LEVERS]
    none, checkpointing, offload = (plan.updates - plan.held for plan in plans)
    assert checkpointing < 0.6 * none
    assert checkpointing - offload > (LAYERS - 1) * 1024 * HIDDEN * 4
    assert plans[2].on_host >= LAYERS * 1024 * HIDDEN * 4
    assert plans[1].on_host == plans[0].on_host == 0


def test_offloaded_activations_stand_in_the_plans_text(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    model = {"path": str(tmp_path / "model"), **LEVERS["offload"]}
    plan = plan_run(build_config(tmp_path / "run", model=model))
    assert "offloaded activations: " in text(plan)
