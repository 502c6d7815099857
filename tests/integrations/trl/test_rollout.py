"""What the rollout function gives TRL: tokens within budgets, masks of forced ones, seeds that repeat."""

import copy

import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from elastic import Budget, Markers
from elastic.integrations.trl import ElasticGRPOTrainer, elastic_rollout_func
from tests.integrations.trl.runs import build, logged, prepared, prompts, weights

BUDGET = Budget(thinking=8, solution=6)
TRAINERS = pytest.mark.parametrize("trainer_class", [GRPOTrainer, ElasticGRPOTrainer])


def trainer_of(model_path, tmp_path, trainer_class=GRPOTrainer, budget=BUDGET, own=None, **options):
    rollouts = elastic_rollout_func(budget, **(own or {}))
    return build(trainer_class, model_path, tmp_path, rollout_func=rollouts, **options)


class Recorded:
    """A reward function that keeps what it was given."""

    __name__ = "recorded"

    def __init__(self):
        self.calls = []

    def __call__(self, **given):
        self.calls.append(given)
        return [float(len(ids)) for ids in given["completion_ids"]]

    @property
    def completions(self):
        return [call["completion_ids"] for call in self.calls]


@TRAINERS
@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_forced_tokens_get_no_gradient_at_all(model_path, tmp_path, trainer_class, loss):
    """The gradient on what the head is given: exact zeros where a forced token is predicted."""
    trainer = trainer_of(model_path, tmp_path, trainer_class, beta=0.1, loss_type=loss)
    inputs = prepared(trainer)
    states = []

    def keep(module, arguments, output):
        output.retain_grad()
        states.append(output)

    trainer.model.model.norm.register_forward_hook(keep)
    trainer.compute_loss(trainer.model, inputs).backward()
    width = inputs["completion_ids"].shape[1]
    gradient = states[-1].grad[:, -width - 1 : -1].abs().sum(-1)
    kept, sampled = inputs["completion_mask"].bool(), inputs["tool_mask"].bool()
    assert (kept & ~sampled).any()
    assert (gradient[kept & ~sampled] == 0).all()
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept & sampled & (inputs["advantages"] != 0)[:, None]] > 0).all()
    assert inputs["num_items_in_batch"].item() == (kept & sampled).sum()


def test_rows_keep_to_their_budgets_and_cut_ones_keep_their_loss(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path)
    inputs = prepared(trainer)
    lengths = inputs["completion_mask"].sum(1)
    assert lengths.max() == 8 + 1 + 6
    cut = lengths == 15
    assert (inputs["tool_mask"][cut][:, :15].sum(1) == 14).all()


def test_rows_that_a_limit_ended_lose_theirs_if_asked(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path, own={"mask_cut_solutions": True})
    inputs = prepared(trainer)
    counted = (inputs["completion_mask"] * inputs["tool_mask"]).sum(1)
    stopped = (inputs["completion_ids"] == trainer._tokenizer.eos_token_id).any(1)
    cut = (inputs["completion_mask"].sum(1) == 15) & ~stopped
    assert cut.any()
    assert (counted[cut] == 0).all()
    assert inputs["num_items_in_batch"].item() == counted.sum()
    assert torch.isfinite(trainer.compute_loss(trainer.model, inputs))


def test_logprobs_are_those_of_the_trained_model(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path, temperature=0.7, top_p=0.9)
    inputs = prepared(trainer)
    counted = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    width = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        logprobs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)
    told = inputs["sampling_per_token_logps"]
    torch.testing.assert_close(told[counted], logprobs[counted], rtol=0, atol=1e-4)
    assert (told[~counted] == 0).all()


def test_reward_functions_get_texts_counts_and_reasons(model_path, tmp_path):
    reward = Recorded()
    trainer = trainer_of(model_path, tmp_path, reward_funcs=reward)
    prepared(trainer)
    (given,) = reward.calls
    tokenizer = trainer._tokenizer
    for row, ids in enumerate(given["completion_ids"]):
        assert given["thinking_tokens"][row] <= 8
        assert given["solution_tokens"][row] <= 6
        text = tokenizer.decode(ids)
        thought, _, solution = text.partition("</think>")
        assert given["thinking_text"][row].split() == thought.split()
        assert given["solution_text"][row].split() == solution.replace("<eos>", "").split()
        reason = "stop" if ids[-1] == tokenizer.eos_token_id else "solution_budget"
        assert given["finish_reason"][row] == reason
    assert any(given["thinking_cut"])
    assert any(given["solution_cut"])


def test_budgets_follow_a_column_of_the_dataset(model_path, tmp_path):
    reward = Recorded()
    dataset = prompts(6, t=[0, 1, 2, 3, 4, 5])
    own = {"thinking_column": "t"}
    trainer = trainer_of(
        *(model_path, tmp_path), own=own, reward_funcs=reward, train_dataset=dataset, max_steps=3
    )
    trainer.train()
    seen = {}
    for call in reward.calls:
        for prompt, used, limit in zip(call["prompts"], call["thinking_tokens"], call["t"], strict=True):
            assert used <= limit
            seen.setdefault(prompt, limit)
    assert sorted(seen.values()) == [0, 1, 2, 3, 4, 5]


def test_conversations_go_through_the_chat_template(model_path, tmp_path):
    texts = [row["prompt"].removeprefix("<bos> ").removesuffix(" <think>") for row in prompts(2)]
    chats = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})
    rows = []
    for dataset in (prompts(2), chats):
        reward = Recorded()
        prepared(trainer_of(model_path, tmp_path, train_dataset=dataset, reward_funcs=reward))
        rows += reward.completions
    assert rows[0] == rows[1]


def test_another_seed_gives_other_rows_and_the_same_one_the_same(model_path, tmp_path):
    rows = [
        prepared(trainer_of(model_path, tmp_path, seed=seed, shuffle_dataset=False))[
            "completion_ids"
        ].tolist()
        for seed in (3, 3, 4)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_a_generation_is_drawn_anew_within_a_step_and_evaluations_alike(model_path, tmp_path):
    reward = Recorded()
    trainer = trainer_of(
        *(model_path, tmp_path),
        reward_funcs=reward,
        train_dataset=prompts(1).select([0] * 4),
        eval_dataset=prompts(2),
        per_device_train_batch_size=4,
        steps_per_generation=1,
        gradient_accumulation_steps=2,
        learning_rate=0.0,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
    )
    trainer.train()
    one, two, first, second, three, four, *again = reward.completions
    assert len({str(rows) for rows in (one, two, three, four)}) == 4
    assert again == [first, second]
    assert first != second


def test_a_resumed_run_repeats_the_rows_and_weights(model_path, tmp_path):
    reward, resumed_reward = Recorded(), Recorded()
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    own = {"thinking_low": 1}
    whole = trainer_of(
        model_path, tmp_path, ElasticGRPOTrainer, own=own, reward_funcs=reward, **copy.copy(options)
    )
    whole.train()
    resumed = trainer_of(
        model_path, tmp_path, ElasticGRPOTrainer, own=own, reward_funcs=resumed_reward, **options
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(reward.calls) == 4
    assert resumed_reward.completions == reward.completions[2:]
    assert torch.equal(weights(resumed), weights(whole))


def test_the_log_has_the_use_of_budgets(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path, max_steps=1)
    trainer.train()
    (entry,) = logged(trainer)
    assert 0 < entry["completions/thinking_tokens"] <= 8
    assert 0 < entry["completions/solution_tokens"] <= 6
    assert 0 < entry["completions/thinking_cut"] <= 1
    assert 0 < entry["completions/solution_cut"] <= 1


def test_groups_split_over_calls_draw_what_whole_ones_do(model_path, tmp_path):
    """Half a group in a call, as two processes have it: seeds follow the row's number, not the call's."""
    trainer = trainer_of(model_path, tmp_path)
    trainer.model.train()
    row = prompts(1)[0]["prompt"]
    whole = elastic_rollout_func(BUDGET)([row] * 4, trainer)["completion_ids"]
    half = elastic_rollout_func(BUDGET)([row] * 2, trainer)["completion_ids"]
    assert half == whole[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetition_penalty": 1.1}, r"repetition_penalty: expected 1.0, .*got 1.1"),
        ({"generation_kwargs": {"no_repeat_ngram_size": 2}}, r"generation_kwargs: expected None, .*got"),
        ({"cache_implementation": "static"}, r"cache_implementation: expected None, .*got static"),
        ({"vllm_structured_outputs_regex": "a+"}, r"vllm_structured_outputs_regex: expected None, .*got a\+"),
        ({"mask_truncated_completions": True}, r"mask_truncated_completions: .* mask_cut_solutions=True"),
        ({"max_completion_length": 14}, r"max_completion_length: expected at least 15, .* got 14"),
        ({"train_dataset": prompts(6, finish_reason=["x"] * 6)}, r"columns finish_reason: rename them"),
    ],
)
def test_what_budgets_cannot_honour_is_refused(model_path, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(trainer_of(model_path, tmp_path, **options))


def test_a_vllm_in_the_trainers_process_is_refused(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path)
    trainer.args.use_vllm, trainer.args.vllm_mode = True, "colocate"
    with pytest.raises(ValueError, match="vllm_mode: expected 'server', got 'colocate'"):
        prepared(trainer)


def test_tools_are_refused(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path)
    trainer.tools = [print]
    with pytest.raises(ValueError, match="tools, environment_factory: expected none"):
        trainer.rollout_func([prompts(1)[0]["prompt"]], trainer)


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValueError, match=r"phase: expected one of opening, .* got 'x'"):
        elastic_rollout_func(BUDGET, phase="x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'thinking_lo'"):
        elastic_rollout_func(BUDGET, thinking_lo=3)


def test_markers_that_the_vocabulary_lacks_are_refused(model_path, tmp_path):
    trainer = trainer_of(model_path, tmp_path, own={"markers": Markers(start=(99,), end=(98,))})
    with pytest.raises(ValueError, match=r"(98|99)"):
        prepared(trainer)
