"""What does nothing says so, and what could only train nothing is refused."""

import warnings
from pathlib import Path

import pytest
import torch

from elastic.train import TrainConfig
from elastic.train.config.no_effect import RULES, idle_keys, without_effect
from tests.train.test_train_config import tables
from tests.train.tiny_run import build_config, run

EXAMPLES = Path(__file__).parents[2] / "examples"

# Two configurations, and odd values of everything that does nothing in them.
PLAIN = {"train": {"steps": 2}}
PLAIN_IDLE = {
    "data": {
        "add_special_tokens": True,
        "columns": [["prompt", "text"]],
        "keep_columns": ["level"],
        "min_prompt_chars": 500,
        "max_prompt_chars": 600,
        "min_pass_rate": 0.9,
        "max_pass_rate": 0.95,
        "answer_kind": "number",
    },
    "reward": {
        "alpha": 0.5,
        "target_min": 3,
        "target_max": 4,
        "boxes": "all",
        "answer_tags": True,
        "workers": 3,
        "timeout_s": 1.0,
        "memory_mb": 64,
        "sandbox": False,
        "messages": True,
        "async_timeout_s": 2.0,
        "overlong_tokens": 9,
        "overlong_cache": 2,
    },
    "budget": {
        "thinking_low": 3,
        "solution_low": 2,
        "thinking_start": 9,
        "solution_start": 8,
        "curriculum_steps": 7,
        "curriculum": "exponential",
        "extension": "so",
        "thinking_column": "think",
        "solution_column": "solve",
        "cut_weights": [2.0],
        "cut_samples": 3,
    },
    "rollout": {"max_new_tokens": 2, "max_batches": 5, "most_kept": 6, "vllm_memory": 0.5},
    "loss": {
        "pass_k": 2,
        "tau_positive": 3.0,
        "tau_negative": 4.0,
        "max_length": 5,
        "kl": "k1",
        "kl_weighted": True,
        "engine_level": "row",
        "engine_low": 0.5,
        "engine_high": 0.7,
    },
    "adapter": {"alpha": 8, "use_rslora": True, "target_modules": ["q_proj"], "dtype": "bfloat16"},
    "optim": {"final_lr": 0.5, "decay_ratio": 0.3, "momentum": 0.4},
    "eval": {
        "source": "tiny",
        "count": 3,
        "split": "train",
        "columns": [["answer", "value"]],
        "chat": "off",
        "seed": 4,
        "samples": 2,
        "temperature": 0.1,
        "top_p": 0.3,
        "budgets": [[1, 1], [-1, -1]],
        "at_start": False,
    },
    "logging": {
        "samples": 9,
        "samples_table": False,
        "wandb_name": "first",
        "wandb_tags": ["a"],
        "wandb_mode": "offline",
    },
    "train": {"best_is": "least"},
}
OTHER = {
    "train": {"steps": 2, "minibatches": 2},
    "loss": {"loss": "sapo", "advantage": "rloo", "kl_coef": 0.1, "linear": "off"},
    "optim": {"warmup_updates": 9, "name": "sgd"},
}
OTHER_IDLE = {
    "loss": {
        "clip_low": 0.9,
        "clip_high": 9.0,
        "delta": 1.5,
        "dual_clip": 1.1,
        "advantage_eps": 3.0,
        "skip_zero_advantage": False,
        "linear_chunk_tokens": 1,
    },
    "optim": {"schedule": "linear", "final_lr": 0.7, "beta1": 0.2, "beta2": 0.3, "eps": 0.1},
}


def merged(left, right):
    return {name: left.get(name, {}) | right.get(name, {}) for name in left.keys() | right.keys()}


def keys(table):
    return {f"{name}.{key}" for name, values in table.items() for key in values}


@pytest.mark.parametrize(("base", "idle"), [(PLAIN, PLAIN_IDLE), (OTHER, OTHER_IDLE)], ids=["plain", "other"])
def test_what_is_said_to_do_nothing_does_nothing_and_is_said_once(tmp_path, base, idle):
    with pytest.warns(UserWarning, match="settings that have no effect in this run") as seen:
        with_idle = run(build_config(tmp_path / "idle", **merged(base, idle)))
    (warning,) = [str(w.message) for w in seen if "no effect" in str(w.message)]
    for key in keys(idle):
        assert f"{key} (" in warning, key
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without = run(build_config(tmp_path / "without", **base))
    for a, b in zip(with_idle.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_rule_has_been_seen_at_work():
    seen = keys(PLAIN_IDLE) | keys(OTHER_IDLE) | {"data.seed", "data.system", "optim.warmup_updates"}
    seen |= {"rollout.attention", "rollout.compile", "adapter.rollouts"}  # of other engines
    assert {key for rule in RULES for key in rule.keys if not key.startswith("eval.")} <= seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"data": {"source": "a.jsonl", "seed": 3}}, ["data.seed (only generated sets are drawn)"]),
        (
            {"data": {"source": "a.jsonl", "system": ""}},
            ["data.system (an empty text leaves the chat template's own message)"],
        ),
        ({"data": {"source": "a.jsonl", "system": "Be brief."}}, []),
        ({"optim": {"warmup_updates": 200}}, []),
        (
            {"optim": {"warmup_updates": 201}},
            ["optim.warmup_updates (the run has fewer updates, so the rate never comes to optim.lr)"],
        ),
        ({"optim": {"final_lr": 0.0}}, ["optim.final_lr (no rate of this optim.schedule is given by it)"]),
        ({"optim": {"final_lr": 0.1, "schedule": "cosine"}}, []),
        ({"budget": {"draw": "random", "thinking_low": 0}}, []),
        ({"rollout": {"max_new_tokens": 9}, "budget": {"solution": "unlimited"}}, []),
        ({"rollout": {"max_new_tokens": 9}, "eval": {"every": 1, "budgets": [[-1, 5]]}}, []),
        ({"rollout": {"max_new_tokens": 9}}, ["rollout.max_new_tokens (the budgets end every row)"]),
        (
            {"loss": {"kl": "k3", "kl_coef": 0.1, "tau_positive": 1.0}},
            ["loss.tau_positive (only sapo reads it)"],
        ),
        ({"loss": {"loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "delta": 4.0}}, []),
        ({"eval": {"every": 5, "count": 3}}, []),
        ({"rollout": {"attention": "flex", "compile": "on"}}, []),
        (
            {"rollout": {"engine": "vllm", "vllm_memory": 0.5, "compile": "on"}},
            ["rollout.compile (vLLM has its own attention and compilation)"],
        ),
        ({"adapter": {"alpha": 8}}, ["adapter.alpha (adapter.rank is 0)"]),
        ({"adapter": {"rank": 4, "alpha": 8, "rollouts": "merged"}}, []),
        (
            {"adapter": {"rank": 4, "rollouts": "merged"}, "rollout": {"engine": "vllm"}},
            ["adapter.rollouts (vLLM decodes with merged weights)"],
        ),
        ({"rollout": {"vllm_memory": 0.5}}, ["rollout.vllm_memory (rollout.engine is not 'vllm')"]),
    ],
)
def test_exactly_what_was_set_and_does_nothing_is_said(changes, said):
    assert without_effect(TrainConfig.from_table(tables(**changes))) == said


def test_values_given_in_python_count_where_they_are_not_the_default():
    config = TrainConfig.from_table(tables())
    budget = type(config.budget)(thinking_low=3, solution_start=None)
    python = TrainConfig(config.model, config.data, config.train, budget=budget)
    assert without_effect(python) == ["budget.thinking_low (only budget.draw = 'random' reads it)"]


def test_written_configuration_says_nothing_that_the_first_one_did_not(tmp_path):
    path = tmp_path / "config.toml"
    for changes in ({}, {"budget": {"thinking_low": 3}, "loss": {"tau_negative": 1.05}}):
        config = TrainConfig.from_table(tables(**changes))
        path.write_text(config.to_toml())
        again = TrainConfig.load(path)
        assert again == config
        assert set(without_effect(again)) <= set(without_effect(config))
    assert "kl_weighted" not in path.read_text()
    assert "thinking_low = 3" in path.read_text()
    assert {"loss.kl_weighted", "budget.thinking_low"} <= idle_keys(config).keys()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_examples_set_nothing_in_vain(path):
    assert without_effect(TrainConfig.load(path)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": {"samples_per_prompt": 1}}, "rollout.samples_per_prompt: must be at least 2, got 1"),
        (
            {"loss": {"kl": "k1", "kl_coef": 0.1}},
            "'k1' without loss.kl_weighted regularises nothing: the gradient",
        ),
        (
            {"loss": {"loss": "cispo"}},
            "loss.clip_high: must be at least 1 with loss.loss = 'cispo'.* got 0.2",
        ),
    ],
)
def test_what_could_only_be_a_mistake_is_refused_with_the_reason(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_table(tables(**changes))


@pytest.mark.parametrize(
    "loss",
    [{"kl": "k1", "kl_coef": 0.1, "kl_weighted": True}, {"kl": "k1"}, {"loss": "cispo", "clip_high": 1.0}],
)
def test_what_does_something_is_taken(loss):
    TrainConfig.from_table(tables(loss=loss))


def test_unweighted_k1_knows_no_reference_and_the_weighted_one_does():
    """Why it is refused: the same gradient under two references."""
    from elastic import ops

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator)
    targets = torch.randint(5, (6,), generator=generator)
    offsets, zero = torch.tensor([0, 3, 6]), torch.zeros(2)

    def gradient(reference, **options):
        leaf = logits.clone().requires_grad_()
        old = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
        options |= {"ref_logprobs": reference, "kl_coef": 1.0}
        ops.grpo_loss(leaf, targets, old, offsets, zero, **options).loss.backward()
        return leaf.grad

    references = torch.full((6,), -1.0), torch.tensor([-9.0, -0.1, -3.0, -0.5, -7.0, -2.0])
    k1, weighted, k3 = (
        [gradient(reference, **options) for reference in references]
        for options in ({"kl": "k1"}, {"kl": "k1", "kl_weighted": True}, {"kl": "k3"})
    )
    assert torch.equal(*k1)
    assert not torch.allclose(*weighted)
    assert not torch.allclose(*k3)
