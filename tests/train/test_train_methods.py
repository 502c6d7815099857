"""``method = "..."``: what each preset sets, what contradicts it, and that each trains."""

import re
from pathlib import Path

import pytest
import torch

from elastic import ops
from elastic.evaluate.methods import METHODS
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import TrainConfig, train_from_config
from elastic.train.config import changed_keys
from elastic.train.config.methods import PRESETS, UNTRAINED
from elastic.train.config.train_config import tomllib
from tests.train.test_train_config import tables
from tests.train.tiny_run import build_model, lines

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
CAP = {"thinking": "unlimited", "solution": "unlimited", "draw": "fixed"}
L1 = {"rollout": {"max_new_tokens": 11}}
SHRINKING = {"budget": {"thinking": 6, "solution": 5, "thinking_start": 12, "curriculum_steps": 2}}
# method: (what has to be given, what then holds)
EXPECTED = {
    "e1": (
        {"budget": {"thinking": 6, "solution": 5}},
        {"budget": {"thinking": 6, "solution": 5, "draw": "fixed"}, "reward": {"length": "none"}},
    ),
    "capped": (
        {"budget": {"total": 11}},
        {"budget": CAP | {"total": 11}, "reward": {"length": "none"}, "loss": {"clip_high": 0.2}},
    ),
    "l1_exact": (
        L1,
        {
            "budget": CAP | {"total": None},
            "reward": {"length": "l1-exact", "alpha": 3e-4, "target_min": 11, "target_max": 11},
        },
    ),
    "l1_max": (L1, {"budget": CAP | {"total": None}, "reward": {"length": "l1-max"}}),
    "e1_random": (
        {"budget": {"thinking": 6, "solution": 5, "thinking_low": 2}},
        {"budget": {"draw": "random", "thinking_low": 2, "thinking": 6}},
    ),
    "e1_curriculum": (
        SHRINKING,
        {"budget": SHRINKING["budget"] | {"draw": "curriculum", "curriculum": "exponential"}},
    ),
    "dler": (
        {"budget": {"total": 11}},
        {
            "budget": CAP | {"total": 11},
            "loss": {"advantage": "batch", "clip_low": 0.2, "clip_high": 0.28, "mask_cut_solutions": False},
            "rollout": {"dynamic_sampling": True, "max_batches": 3},
        },
    ),
    "anytime": (
        {"budget": {"cuts": [2, 4, 6], "solution": 5}},
        {"budget": {"cuts": (2, 4, 6), "thinking": 6, "draw": "fixed"}, "reward": {"length": "none"}},
    ),
}


def named(method, **changes):
    return {"method": method} | tables(**changes)


@pytest.mark.parametrize("method", EXPECTED)
def test_a_method_sets_what_makes_it_and_its_file_loads_to_the_same(method):
    given, expected = EXPECTED[method]
    config = TrainConfig.from_table(named(method, **given))
    for table, values in expected.items():
        for key, value in values.items():
            assert getattr(getattr(config, table), key) == value, f"{table}.{key}"
    text = config.to_toml()
    assert text.startswith(f'method = "{method}"\n')
    again = TrainConfig.from_table(tomllib.loads(text))
    assert again == config
    assert again.for_problems(256) == config.for_problems(256) == config


def test_every_method_is_in_these_tables_and_in_the_documented_one():
    assert set(PRESETS) == set(EXPECTED)
    documented = re.findall(r"^\| `(\w+)` \|(.*)$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in documented] == list(PRESETS)
    for name, cells in documented:
        for key in PRESETS[name].needs:
            assert f"`{key}`" in cells or f"`.{key.split('.')[1]}`" in cells


def test_every_method_of_evaluations_has_a_training_or_none():
    assert METHODS.keys() == PRESETS.keys() | set(UNTRAINED)


def test_dlers_advantages_are_those_of_its_code_up_to_one_factor_a_step():
    """REINFORCE++ with a baseline (arXiv 2501.03262): less the group's mean, over the batch's deviation."""
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]], dtype=torch.float64)
    centred = rewards - rewards.mean(1, keepdim=True)
    theirs = (centred / centred.std()).flatten()
    ours = ops.group_advantage(rewards.flatten(), torch.tensor([0, 4, 8, 12]), "batch", 0.0)
    torch.testing.assert_close(ours, theirs * (centred.std() / rewards.std()))


def test_without_a_method_nothing_is_set():
    config = TrainConfig.from_table(tables())
    assert config.method is None
    assert config == TrainConfig.from_table(tables(budget={"draw": "fixed"}, reward={"length": "none"}))
    assert "method" not in config.to_toml()


def test_given_keys_that_go_with_a_method_are_kept():
    dler = TrainConfig.from_table(
        named("dler", budget={"total": 11}, loss={"clip_high": 0.4}, rollout={"max_batches": 9})
    )
    assert (dler.loss.clip_high, dler.rollout.max_batches) == (0.4, 9)
    linear = {"budget": SHRINKING["budget"] | {"curriculum": "linear"}}
    assert TrainConfig.from_table(named("e1_curriculum", **linear)).budget.curriculum == "linear"
    capped = named("capped", budget={"total": 11, "thinking": "unlimited"})
    assert TrainConfig.from_table(capped).budget.total == 11


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("grpo", {}, "method: expected one of e1, capped, l1_exact, .*, got 'grpo'"),
        ("vanilla", {}, "method: 'vanilla' has no training, .* at inference; these have: e1, capped"),
        ("s1", {}, "'s1' has no training"),
        ("separate", {}, "'separate' has no training"),
        (3, {}, "method: must be text, got 3"),
        ("capped", {}, "budget.total: method = 'capped' needs it"),
        (
            "capped",
            {"budget": {"total": 60, "solution": 24}},
            "budget.solution: must be 'unlimited' with method = 'capped', got 24",
        ),
        (
            "capped",
            {"budget": {"total": 60, "thinking": 1024}},  # the default, but given
            "budget.thinking: must be 'unlimited' with method = 'capped', got 1024",
        ),
        (
            "e1",
            {"budget": {"thinking": "unlimited"}},
            "budget.thinking: must be a number of tokens with method = 'e1', got 'unlimited'",
        ),
        (
            "e1",
            {"reward": {"length": "l1-max"}},
            "reward.length: must be 'none' with method = 'e1', got 'l1-max'",
        ),
        ("e1", {"budget": {"draw": "random"}}, "budget.draw: must be 'fixed' with method = 'e1'"),
        ("e1_random", {"budget": {"draw": "fixed"}}, "budget.draw: must be 'random' with .* got 'fixed'"),
        ("l1_max", {}, "rollout.max_new_tokens: method = 'l1_max' needs it"),
        ("l1_exact", L1 | {"reward": {"length": "l1-max"}}, "reward.length: must be 'l1-exact'"),
        ("l1_max", L1 | {"budget": {"total": 9}}, "budget.total: must be absent with method = 'l1_max'"),
        ("e1_curriculum", {"budget": {"thinking_start": 9}}, "budget.curriculum_steps: method = .* needs it"),
        (
            "e1_curriculum",
            {"budget": SHRINKING["budget"] | {"thinking_start": 6}},
            "budget.thinking_start: must be above budget.thinking = 6 with method = 'e1_curriculum', got 6",
        ),
        (
            "dler",
            {"budget": {"total": 9}, "loss": {"advantage": "group"}},
            "loss.advantage: must be 'batch' with method = 'dler', got 'group'",
        ),
        (
            "dler",
            {"budget": {"total": 9}, "rollout": {"dynamic_sampling": False}},
            "rollout.dynamic_sampling: must be True with method = 'dler', got False",
        ),
        (
            "dler",
            {"budget": {"total": 9}, "loss": {"clip_high": 0.2}},
            "loss.clip_high: must be above loss.clip_low = 0.2 with method = 'dler', got 0.2",
        ),
        (
            "dler",
            {"budget": {"total": 9}, "loss": {"clip_low": 0.3}},
            "loss.clip_high: must be above loss.clip_low = 0.3 with method = 'dler', got 0.28",
        ),
        ("anytime", {}, "budget.cuts: method = 'anytime' needs it"),
        (
            "e1",
            {"budget": {"thinking": 6, "cuts": [2, 4]}},
            "budget.cuts: must be absent with method = 'e1', got",
        ),
    ],
)
def test_what_contradicts_a_method_is_refused_by_both_names(method, changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_table(named(method, **changes))


def test_a_run_may_be_resumed_under_the_name_of_its_method():
    given = EXPECTED["capped"][0]
    one = TrainConfig.from_table(named("capped", **given)).to_dict()
    other = TrainConfig.from_table(tables(budget=CAP | {"total": 11})).to_dict()
    assert changed_keys(one, other) == ([], [])
    third = TrainConfig.from_table(named("capped", budget={"total": 12})).to_dict()
    assert changed_keys(one, third) == (["budget.total: 11 -> 12"], [])


@pytest.mark.parametrize("method", [name for name in EXPECTED if name != "l1_max"])
def test_every_method_trains_the_embedded_task(tmp_path, method):
    start = tmp_path / "start"
    build_model().save_pretrained(start)
    build_tokenizer().save_pretrained(start)
    train(method, start, tmp_path / "run")
    if method == "l1_exact":  # L1-Max starts from the Exact model
        train("l1_max", tmp_path / "run" / "final", tmp_path / "max")


def train(method, model, output):
    given = EXPECTED[method][0]
    config = {
        "method": method,
        "model": {"path": str(model), "device": "cpu"},
        "data": {"source": "tiny", "count": 8},
        "reward": {"name": "tiny"},
        "budget": given.get("budget", {}),
        "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_rows": 8} | given.get("rollout", {}),
        "optim": {"lr": 1e-2},
        "train": {"output_dir": str(output), "steps": 2, "save_every": 0},
        "logging": {"console_every": 0, "tensorboard": False, "samples_every": 1},
    }
    assert train_from_config(TrainConfig.from_table(config)).step == 2
    assert [record["step"] for record in lines(output / "metrics.jsonl")] == [1, 2]
    asked = {"l1_exact": "? so : 1 1 <think>", "l1_max": "? ok : 1 1 <think>"}
    for record in lines(output / "samples.jsonl"):
        assert asked.get(method, "? <think>") in record["prompt"]
