"""The linear head under mixed precision: found as in float32, and the same one for policy and reference."""

import copy

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from elastic.train.config.updates import LossConfig
from elastic.train.run.accelerator import build_accelerator
from elastic.train.update.policy import Policy
from tests.train.test_train_linear import SMALL, gemma
from tests.train.tiny_run import build_config, build_model

MIXED = {"mixed_precision": "bf16"}


def prepared(model, tmp_path, **loss):
    accelerator = build_accelerator(build_config(tmp_path, train=MIXED))
    return Policy(accelerator.prepare(model), accelerator, LossConfig(**loss), temperature=0.8, max_length=9)


@pytest.mark.parametrize("make", [build_model, lambda: gemma(final_logit_softcapping=2.0)])
def test_a_head_is_found_under_autocast_and_in_the_unprepared_reference(tmp_path, own_accelerate_state, make):
    model = make()
    reference = copy.deepcopy(model)
    policy = prepared(model, tmp_path)
    assert policy._head is not None
    assert policy._head_of(reference) is not None


def test_scaled_logits_are_still_noticed_under_autocast(tmp_path, own_accelerate_state):
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))
    assert prepared(copy.deepcopy(model), tmp_path)._head is None
    with pytest.raises(ValueError, match=r"loss.linear: 'on' needs .* got CohereForCausalLM"):
        prepared(model, tmp_path, linear="on")
