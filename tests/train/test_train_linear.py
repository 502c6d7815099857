"""`loss.linear`: the loss from hidden states and the head, against the loss from logits."""

import json

import pytest
import torch
from accelerate import Accelerator
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM

from elastic.models.head import LinearHead
from elastic.train.config.updates import LossConfig
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_hidden, packed_logits
from elastic.train.update.policy import Policy
from elastic.train.update.stats import UpdateStats
from tests.train.test_train_accumulation import LOSSES, OPTIM, random_experience
from tests.train.tiny_run import build_config, build_model, run

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def trajectory(output, linear, loss, **train):
    """Weights after the run, and what was logged of every step."""
    config = build_config(
        output,
        train={"steps": 4} | train,
        optim=OPTIM,
        loss={**loss, "linear": linear, "linear_chunk_tokens": 7},
    )
    trainer = run(config)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), lines


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["loss"])
def test_hidden_states_give_the_trajectory_of_logits(tmp_path, loss):
    off, off_lines = trajectory(tmp_path / "off", "off", loss)
    on, on_lines = trajectory(tmp_path / "on", "on", loss, accumulation_steps=2)
    torch.testing.assert_close(on, off, rtol=0, atol=2e-6)
    for left, right in zip(on_lines, off_lines, strict=True):
        for key in ("loss", "grad_norm", "entropy", "clip_fraction"):
            assert left[key] == pytest.approx(right[key], rel=1e-3, abs=1e-6), key


def policy(model, linear, **options):
    torch.manual_seed(0)
    return Policy(
        model, Accelerator(cpu=True), LossConfig(linear=linear, **options), temperature=0.8, max_length=9
    )


def gemma(**changes):
    """A tied head with a soft cap, and multi-query layers with caps of their own."""
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, attn_logit_softcapping=None, **changes))
    model.get_output_embeddings().weight.data.mul_(20)  # logits large enough for the cap to act
    return model.eval()


def test_a_soft_capped_head_is_recognised():
    model = gemma(final_logit_softcapping=2.0)
    head = LinearHead.of(model)
    assert head.softcap == 2.0
    assert LinearHead.of(build_model()).softcap is None


def test_a_soft_capped_model_has_the_gradient_of_its_logits():
    experience = random_experience([5, 3, 4, 6], [0, 0, 1, 1])
    experience.advantages[:] = torch.tensor([1.0, -1.0, 0.5, 2.0])
    gradients = []
    for linear in ("off", "on"):
        model = gemma(final_logit_softcapping=2.0)
        trained = policy(model, linear, kl_coef=0.0, linear_chunk_tokens=5)
        trained.backward(experience, experience.loss_tokens, 4, UpdateStats())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)


def test_logprobs_are_those_of_the_logits():
    experience = random_experience([5, 3, 4, 6], [0, 0, 1, 1])
    model = gemma(final_logit_softcapping=2.0)
    for left, right in zip(
        policy(model, "on").logprobs(experience), policy(model, "off").logprobs(experience), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


def test_no_logits_are_made():
    model = build_model()
    packed = pack([[1, 2, 3]], [torch.tensor([4, 5, 6])], [0])
    head = LinearHead.of(model)
    shapes = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    with tree_attention_of(model):
        hidden = packed_hidden(model, head, packed)
        logits = packed_logits(model, packed)
    assert shapes[-2][1] == 0
    torch.testing.assert_close(torch.nn.functional.linear(hidden, model.lm_head.weight), logits)


def test_scaled_logits_are_refused_by_name_and_left_to_the_model():
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))
    assert LinearHead.of(model) is None
    with pytest.raises(ValueError, match=r"loss.linear: 'on' needs .* got CohereForCausalLM"):
        policy(model, "on")
    assert policy(model, "auto")._head is None


def test_auto_leaves_a_vocabulary_narrower_than_the_hidden_states_alone():
    assert policy(build_model(), "auto")._head is not None
    assert policy(build_model(hidden_size=64), "auto")._head is None
    assert policy(build_model(), "off")._head is None


def test_finding_the_head_leaves_the_model_as_it_was():
    model = build_model().train()
    state = torch.get_rng_state()
    assert LinearHead.of(model) is not None
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.lm_head._forward_pre_hooks


class Adapter(torch.nn.Module):
    """Adds nothing as long as `up` is zero."""

    def __init__(self):
        super().__init__()
        self.down, self.up = torch.nn.Parameter(torch.randn(2, 32)), torch.nn.Parameter(torch.zeros(61, 2))

    def forward(self, hidden):
        return hidden @ self.down.T @ self.up.T


def output_hook(model):
    model.lm_head.adapter = Adapter()
    model.lm_head.register_forward_hook(lambda head, inputs, output: output + head.adapter(inputs[0]))


def input_hook(model):
    model.lm_head.register_forward_pre_hook(lambda head, inputs: None)


def gradient_hook(model):
    model.lm_head.register_full_backward_hook(lambda head, inputs, outputs: None)


def gradient_pre_hook(model):
    model.lm_head.register_full_backward_pre_hook(lambda head, outputs: None)


def hook_on_the_model(model):
    model.register_forward_hook(lambda module, inputs, output: None)


def weight_norm(model):
    torch.nn.utils.weight_norm(model.lm_head)


def parametrization(model):
    torch.nn.utils.parametrizations.weight_norm(model.lm_head)


def replaced_forward(model):
    adapter, plain = Adapter(), model.lm_head.forward
    model.lm_head.adapter = adapter
    model.lm_head.forward = lambda hidden: plain(hidden) + adapter(hidden)


def adapter_behind_the_head(model):
    """In the model's own forward, around the head: nothing to be seen on any module."""
    model.adapter, plain = Adapter(), model.forward

    def forward(**inputs):
        caught = []
        handle = model.lm_head.register_forward_pre_hook(lambda head, given: caught.append(given[0]))
        output = plain(**inputs)
        handle.remove()
        output.logits = output.logits + model.adapter(caught[0])
        return output

    model.forward = forward


@pytest.mark.parametrize(
    ("attach", "reason"),
    [
        (output_hook, "its head, or a module that the head is part of, has forward hooks"),
        (input_hook, "its head has forward pre-hooks"),
        (gradient_hook, "its head has backward hooks"),
        (gradient_pre_hook, "its head has backward hooks"),
        (hook_on_the_model, "its head, or a module that the head is part of, has forward hooks"),
        pytest.param(
            weight_norm,
            "its head has forward pre-hooks",
            marks=pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`"),
        ),
        (parametrization, "its head is of type ParametrizedLinear, not torch.nn.Linear"),
        (replaced_forward, "the forward method of its head was replaced"),
        (adapter_behind_the_head, "its logits depend on further parameters behind the head's input"),
    ],
)
def test_what_is_attached_to_the_head_is_left_to_the_model_and_named(attach, reason):
    model = build_model(vocab_size=61, tie_word_embeddings=False)
    attach(model)
    assert policy(model, "auto")._head is None
    with pytest.raises(ValueError, match=f"loss.linear: 'on' needs .* got LlamaForCausalLM: {reason}"):
        policy(model, "on")


def test_an_adapter_hooked_to_the_head_is_trained_under_auto():
    model = build_model(vocab_size=61, tie_word_embeddings=False)
    output_hook(model)
    experience = random_experience([5, 3, 4, 6], [0, 0, 1, 1])
    experience.advantages[:] = torch.tensor([1.0, -1.0, 0.5, 2.0])
    policy(model, "auto").backward(experience, experience.loss_tokens, 4, UpdateStats())
    assert model.lm_head.adapter.up.grad.abs().max() > 0


def test_hooks_elsewhere_leave_the_head_plain():
    model = build_model()
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: None)
    model.register_forward_pre_hook(lambda module, inputs: None)
    assert LinearHead.of(model) is not None
