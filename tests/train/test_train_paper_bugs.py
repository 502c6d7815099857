"""What the paper's training code does wrong, each as a test that ours does not."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from elastic import Markers, ops
from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import IDS, WORDS
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.evaluation import evaluation_budgets
from elastic.train.collect.experience import Experience
from elastic.train.config.budget import BudgetConfig
from elastic.train.config.loop import EvalConfig
from elastic.train.config.updates import LossConfig
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.policy import Policy
from elastic.train.update.stats import UpdateStats
from tests.train.tiny_run import build_config, run

END, EOS = IDS["</think>"], IDS["<eos>"]


def rollout(model, tokenizer, budget, samples=4, **options):
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    sampling = Sampling(temperature=1.0, seed=3)
    prompts = [problem.prompt for problem in problems(3)]
    return engine.generate(prompts, budget, samples, sampling, progress=False, **options)


def policy(model, config=None, temperature=1.0):
    accelerator = Accelerator(cpu=True)
    return Policy(model, accelerator, config or LossConfig(), temperature=temperature, max_length=11)


def gradient(model, experience, config=None):
    model.zero_grad()
    policy(model, config).backward(experience, experience.loss_tokens, len(experience), UpdateStats())
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def logprobs(model, experience):
    """[N] by a plain forward of each row, differentiable."""
    parts = []
    for row, completion in enumerate(experience.completions):
        prompt = experience.prompts[experience.prompt_of[row]]
        ids = torch.cat([torch.tensor(prompt), completion])[None]
        values = model(input_ids=ids).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        parts.append(values.gather(1, completion[:, None])[:, 0])
    return torch.cat(parts)


def plain_gradient(model, experience, mask):
    """On-policy DAPO by hand: -sum over kept tokens of A * logprob, over their number."""
    model.zero_grad()
    lengths = torch.tensor(experience.lengths)
    weights = experience.advantages.repeat_interleave(lengths)
    (-(logprobs(model, experience) * weights * mask).sum() / mask.sum()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.fixture
def cut_batch(model, tokenizer):
    """Rows whose thinking was cut, with forced tokens in the middle."""
    batch = rollout(model, tokenizer, Budget(3, 4, closing="ok . </think> answer"))
    assert batch.thinking_cut.any()
    return batch


def test_forced_end_marker_takes_no_advantage(model, cut_batch):
    experience = Experience.from_rollout(cut_batch, torch.linspace(-1, 1, len(cut_batch)))
    forced = torch.cat([~mask for mask in experience.mask])
    assert forced.sum() == (cut_batch.source == Source.FORCED).sum() > 0
    actual = gradient(model, experience)
    torch.testing.assert_close(actual, plain_gradient(model, experience, ~forced), rtol=1e-4, atol=1e-6)
    with_forced = plain_gradient(model, experience, torch.ones_like(forced))
    assert (actual - with_forced).abs().max() > 1e-3, "the forced tokens would have made a difference"


def test_ppo_clip_is_in_the_loss_that_is_averaged(model, cut_batch):
    experience = Experience.from_rollout(cut_batch, torch.ones(len(cut_batch)))
    # Ratio e = 2.7 everywhere: outside the clip on the side where A = 1 stops gaining.
    risen = dataclasses.replace(experience, old_logprobs=[old - 1 for old in experience.old_logprobs])
    stats = UpdateStats()
    model.zero_grad()
    policy(model).backward(risen, risen.loss_tokens, len(risen), stats)
    assert all(not p.grad.any() for p in model.parameters())
    sums = stats.read(Accelerator(cpu=True))
    assert sums["clipped"] == sums["tokens"] == risen.loss_tokens
    assert sums["loss"] == pytest.approx(-1.2)
    # And on the other side the clip must not act.
    fallen = dataclasses.replace(experience, old_logprobs=[old + 1 for old in experience.old_logprobs])
    assert gradient(model, fallen).abs().max() > 1e-4


def test_padding_with_eos_puts_no_phantom_eos_into_the_loss(model, tokenizer):
    # Real tokenizers have pad = EOS; the rows that end early are then padded with EOS behind their own.
    tokenizer.pad_token = tokenizer.eos_token
    batch = rollout(model, tokenizer, Budget(5, 6), samples=8)
    padding = batch.source == Source.PAD
    assert padding.any()
    assert (batch.tokens[padding] == EOS).all()
    experience = Experience.from_rollout(batch, torch.ones(len(batch)))
    assert experience.lengths == batch.lengths.tolist()
    assert experience.loss_tokens == batch.sampled.sum()
    in_loss = torch.cat(experience.completions)[torch.cat(experience.mask)]
    assert (in_loss == EOS).sum() == (batch.finish_reason == FinishReason.STOP).sum()


def test_truncation_mask_can_fire(model, tokenizer):
    batch = rollout(model, tokenizer, Budget(3, 4), samples=8)
    cut = batch.finish_reason == FinishReason.SOLUTION_BUDGET
    assert cut.any()
    assert (~cut).any()
    kept = Experience.from_rollout(batch, torch.ones(len(batch)))
    masked = Experience.from_rollout(batch, torch.ones(len(batch)), mask_cut_solutions=True)
    assert kept.loss_tokens == batch.sampled.sum()
    assert masked.loss_tokens == batch.sampled[~cut].sum()
    assert [bool(mask.any()) for mask in masked.mask] == (~cut).tolist()


def test_row_that_fills_its_solution_budget_with_eos_is_not_truncated(model, tokenizer):
    # Judged by the last token or by the length, this row would look cut; the machine's record knows.
    batch = rollout(model, tokenizer, Budget(3, 4), samples=64)
    full = (batch.solution_tokens == 4) & (batch.finish_reason == FinishReason.STOP)
    assert full.any()
    masked = Experience.from_rollout(batch, torch.ones(len(batch)), mask_cut_solutions=True)
    assert all(bool(masked.mask[row].any()) for row in full.nonzero()[:, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_not_shifted_behind_a_forced_token(model, tokenizer, temperature):
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    budget = Budget(3, 6, closing="ok . </think> answer", notices=((2, "wait"),))
    batch = engine.generate(
        [p.prompt for p in problems(3)], budget, 4, Sampling(temperature, seed=1), progress=False
    )
    assert (batch.source == Source.FORCED).any()
    experience = Experience.from_rollout(batch, torch.ones(len(batch)))
    mask = torch.cat(experience.mask)
    old = torch.cat(experience.old_logprobs)[mask]
    packed = pack(experience.prompts, experience.completions, experience.prompt_of)
    with torch.no_grad(), tree_attention_of(model):
        rescored, _ = ops.token_logprobs(packed_logits(model, packed), packed.targets, temperature)
    torch.testing.assert_close(rescored[mask], old, rtol=0, atol=2e-6)
    by_policy = torch.cat(policy(model, temperature=temperature).logprobs(experience))
    torch.testing.assert_close(by_policy[mask], old, rtol=0, atol=2e-6)


def test_marker_ids_are_the_tokenizers_not_constants(tmp_path):
    # Markers of two tokens and of one, made of ordinary words.
    config = build_config(
        tmp_path,
        model={"start_marker": "wait check", "end_marker": "so ok"},
        logging={"samples_every": 1, "samples": 16},
        budget={"thinking": 3, "solution": 4},
    )
    dataset = [Problem(f"<bos> {n} + 1 = ? wait check", str(n + 1), str(n)) for n in range(8)]
    run(config, dataset=dataset)
    records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(records) == 3 * 16
    assert all(record["thinking_tokens"] <= 3 for record in records)
    assert any(record["thinking_cut"] for record in records)
    assert all(record["solution_tokens"] <= 4 for record in records)


def test_every_configured_step_runs(tmp_path):
    trainer = run(build_config(tmp_path, train={"steps": 4}))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    three = run(build_config(tmp_path / "three", train={"steps": 3}))
    pairs = zip(trainer.model.parameters(), three.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs), "the last step changed nothing"


def decoded(budget: Budget, tokenizer: Any, sampled: str) -> str:
    """What a row that thinks emits where these words are drawn."""
    machine = budget.compile(Markers.from_tokenizer(tokenizer), tokenizer)
    state = ops.new_state(1, machine, phase=[int(Phase.THINKING)])
    words = []
    for word in sampled.split():
        tokens = torch.tensor([IDS[word]])
        ops.budget_step_(tokens, state, machine)
        words.append(WORDS[tokens.item()])
    return " ".join(words)


@pytest.mark.parametrize("on_eos", ["close", "stop"])
def test_eos_in_thinking_is_decoded_alike_in_training_and_evaluation(on_eos, tokenizer):
    config = BudgetConfig(thinking=6, solution=5, on_eos=on_eos, closing="so </think> ok")
    training = BudgetDraw(config, seed=0).largest
    evaluated = evaluation_budgets(EvalConfig(budgets=((6, 5), (3, 3), (-1, -1))), training).values()
    sampled = "we <eos> 1 1 2 <eos> 3"
    expected = {
        "close": "we so </think> ok 2 <eos> <pad>",
        "stop": "we <eos> <pad> <pad> <pad> <pad> <pad>",
    }
    assert [decoded(b, tokenizer, sampled) for b in (training, *evaluated)] == [expected[on_eos]] * 4


def test_minibatches_are_averaged_not_summed(tmp_path):
    """A gradient norm must not depend on how many micro-batches a step is made of."""
    norms = {}
    for steps in (1, 4):
        output = tmp_path / str(steps)
        run(build_config(output, train={"steps": 1, "accumulation_steps": steps}))
        norms[steps] = json.loads((output / "metrics.jsonl").read_text())["grad_norm"]
    assert norms[4] == pytest.approx(norms[1], rel=1e-4)


def test_rows_without_gradient_are_skipped_exactly(model, cut_batch):
    advantages = torch.linspace(-1, 1, len(cut_batch))
    advantages[2:7] = 0
    experience = Experience.from_rollout(cut_batch, advantages)
    skipped = gradient(model, experience)
    full = gradient(model, experience, LossConfig(skip_zero_advantage=False))
    torch.testing.assert_close(skipped, full, rtol=1e-4, atol=1e-7)
    nothing = dataclasses.replace(experience, advantages=torch.zeros(len(cut_batch)))
    assert not gradient(model, nothing).any(), "a zero gradient, not a missing one"
