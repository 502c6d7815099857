"""What tells one evaluation's settings from another's."""

import pytest
import torch

from elastic.evaluate import EvalSet, evaluate
from elastic.evaluate.run.settings import differences, fingerprint
from elastic.models import tiny
from elastic.rollout import RolloutEngine


def test_a_fingerprint_is_of_the_weights_not_of_where_they_lie() -> None:
    one, two = tiny.load()[0], tiny.load()[0]
    two.config._name_or_path = "elsewhere"
    assert fingerprint(one) == fingerprint(two)
    with torch.no_grad():
        for weight in two.parameters():
            weight.mul_(1 + 1e-6)
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) != fingerprint(one.bfloat16())


def test_another_model_is_refused_and_a_moved_one_goes_on(tmp_path) -> None:
    def run(model) -> None:
        engine = RolloutEngine(model, tokenizer, progress=False)
        problems = EvalSet("tiny", tiny.problems(1), tiny.reward)
        evaluate(engine, problems, ["separate"], "2:4", out=tmp_path, progress=False)

    model, tokenizer = tiny.load()
    run(model)
    model.config._name_or_path = "elsewhere"
    run(model)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    with pytest.raises(ValueError, match=r"other settings .*: model: "):
        run(model)


def test_differences_are_named_down_to_the_value() -> None:
    one = {"a": 1, "b": {"c": [1, {"d": 2}], "e": 3}}
    assert differences(one, one) == []
    assert differences(one, {"a": 1, "b": {"c": [1, {"d": 4}]}}) == ["b.c.1.d: 2, 4", "b.e: 3, None"]
    assert differences([1], [1, 2]) == [": [1], [1, 2]"]
