"""DeepSpeed's ZeRO stages 2 and 3: processes that hold parts of the state train as one does."""

import pytest

from elastic.models.tiny import problems
from tests.train.processes.group import assert_same_metrics, assert_same_weights, train_two, zero2, zero3
from tests.train.processes.test_fsdp import config
from tests.train.tiny_run import build_model, run


@pytest.mark.parametrize(("kind", "tied"), [(zero2, True), (zero3, True), (zero3, False)])
def test_two_processes_give_the_weights_and_metrics_of_one(tmp_path, kind, tied):
    options = {"eval_dataset": problems(4, split="test"), "model": build_model(tie_word_embeddings=tied)}
    assert train_two(config(tmp_path / "two"), kind, **options) == [0, 0], "see the captured stderr"
    run(config(tmp_path / "one"), **options)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert_same_metrics(tmp_path / "one", tmp_path / "two")
