"""What the processor writes down of an engine's rows, without vLLM: its calls are made by hand."""

from types import SimpleNamespace

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.budget import FinishReason
from elastic.integrations.vllm.engine import VLLMEngine
from elastic.integrations.vllm.engine_rows import ROW, CallRows, RecordedBudgets
from elastic.rollout.outcome import batch_of
from elastic.rollout.plan.plan import make_plan
from elastic.rollout.record.batch import TENSOR_FIELDS
from tests.integrations.vllm.bigrams import EOS, bigram_model
from tests.rollout.small_models import make_tokenizer

PROMPTS = [[5, 9], [7], [6, 6, 8]]
BUDGETS = [
    *(Budget(6, 4), Budget(0, 3), Budget(9, None)),
    *(Budget.vanilla(8), Budget(5, 5, grace=3), Budget(40, 40)),
]
SAMPLINGS = [Sampling(1.3), Sampling(0.0), Sampling(1.5, top_k=9, top_p=0.9, most_kept=6)] * 2


@pytest.fixture(scope="module")
def model():
    return bigram_model(), make_tokenizer()


@pytest.fixture
def call(model):
    """The own engine's batch, and the same call for `RecordedBudgets`."""
    engine = RolloutEngine(*model)
    arguments = {"phase": "thinking", "seeds": range(6), "max_new_tokens": None}
    batch = engine.generate(PROMPTS, BUDGETS, 2, SAMPLINGS, **arguments)
    known = {"tokenizer": engine.tokenizer, "markers": engine.markers, "limits": engine.limits}
    plan = make_plan(PROMPTS, BUDGETS, 2, SAMPLINGS, None, list(range(6)), **known, phase="thinking")
    return batch, plan, CallRows(engine.tokenizer, engine.markers, engine.limits, rows=6)


def update(added=(), removed=(), moved=()):
    return SimpleNamespace(added=list(added), removed=list(removed), moved=list(moved))


class Requests:
    """Requests of all rows, in a batch that only grows: row i of the batch is row i of the plan."""

    def __init__(self, plan, rows, net):
        self.plan, self.net, self.own = plan, net, RecordedBudgets(rows, "cpu")
        self.prompts = [plan.prompts[k] for k in plan.prompt_index]
        self.outputs = [[] for _ in self.prompts]
        self.params = [
            SimpleNamespace(extra_args={ROW: row}, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
            for row in range(len(self.prompts))
        ]

    def enter(self, row):
        return row, self.params[row], self.prompts[row], self.outputs[row]

    def draw(self, batch):
        """The tokens of a step, of these rows in this order."""
        last = [(self.prompts[row] + self.outputs[row])[-1] for row in batch]
        with torch.no_grad():
            logits = torch.stack([self.net(torch.tensor([[token]])).logits[0, -1] for token in last])
        return self.own.apply(logits).argmax(dim=1).tolist()

    def ended(self, row):
        ids = self.outputs[row]
        return len(ids) >= self.plan.most[row] or (bool(ids) and ids[-1] == EOS)


def test_the_record_is_the_own_engines_whatever_is_thrown_away(call, model):
    """Draws that vLLM throws away, rows that it draws for once more after their end, EOS behind a budget."""
    batch, plan, rows = call
    with rows.of(plan):
        requests = Requests(plan, rows, model[0])
        everyone = range(len(BUDGETS))
        requests.own.update_state(update(added=[requests.enter(row) for row in everyone]))
        for step in range(2 * max(plan.most)):
            for row, token in enumerate(requests.draw(everyone)):
                if not requests.ended(row) and (step + row) % 3:  # the others' draws are thrown away
                    requests.outputs[row].append(token)
        assert all(requests.ended(row) for row in everyone)
        outcome = rows.outcome()
    found = batch_of(outcome, plan, rows._limits, batch.markers, model[1])
    for name in TENSOR_FIELDS:
        assert torch.equal(getattr(found, name), getattr(batch, name)), name
    assert found.kept is not None
    assert batch.kept is not None
    assert torch.equal(found.kept.counts, batch.kept.counts)
    assert torch.equal(found.kept.ids, batch.kept.ids)
    reasons = {FinishReason(reason) for reason in found.finish_reason.tolist()}
    assert reasons == {FinishReason.STOP, FinishReason.SOLUTION_BUDGET, FinishReason.TOTAL_BUDGET}


def test_rows_keep_their_record_where_vllm_swaps_them(call, model):
    batch, plan, rows = call
    with rows.of(plan):
        requests = Requests(plan, rows, model[0])
        order = list(range(len(BUDGETS)))
        requests.own.update_state(update(added=[requests.enter(row) for row in order]))
        for _ in range(max(plan.most)):
            for row, token in zip(order, requests.draw(order), strict=True):
                if not requests.ended(row):
                    requests.outputs[row].append(token)
            order[0], order[-1] = order[-1], order[0]
            swap = SimpleNamespace(name="SWAP")
            requests.own.update_state(update(moved=[(0, len(order) - 1, swap)]))
        outcome = rows.outcome()
    assert torch.equal(outcome.fields[0], batch.tokens)
    assert torch.equal(outcome.fields[3], batch.logprobs)


def test_broken_logits_name_their_row_and_nothing_is_kept(call, model):
    _, plan, rows = call
    with rows.of(plan):
        requests = Requests(plan, rows, model[0])
        requests.own.update_state(update(added=[requests.enter(row) for row in range(6)]))
        logits = torch.zeros(6, rows._limits.vocab)
        logits[3] = float("nan")
        requests.own.apply(logits)
        with pytest.raises(RuntimeError, match=r"row 3 \(prompt 1\) hold NaN at its token 0"):
            rows.outcome()
    with pytest.raises(AssertionError):
        _ = rows.plan


def test_a_call_whose_processor_was_not_called_is_no_result(call):
    _, plan, rows = call
    with rows.of(plan), pytest.raises(RuntimeError, match="vLLM drew no token"):
        rows.outcome()


def test_without_vllm_the_extra_is_named(model, monkeypatch):
    monkeypatch.setattr("elastic.integrations.vllm.installed.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"vllm is not installed; .* 'elastic\[vllm\]'"):
        VLLMEngine(*model)
