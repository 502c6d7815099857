"""docs/vllm-engine.md: its Python runs as printed, on the embedded model."""

from functools import partial

from elastic.budget import Source
from elastic.integrations import vllm as room
from tests.integrations import pages


def test_the_example_runs(vllm, monkeypatch, capsys):
    own = partial(room.VLLMEngine, "tiny")
    monkeypatch.setattr(room, "VLLMEngine", lambda path, max_rows: own(max_rows=8), raising=False)
    names = pages.run("vllm-engine.md")
    names["engine"].close()
    batch = names["batch"]
    assert len(batch) == 8
    assert batch.thinking_tokens.max() <= 48
    assert (batch.source == Source.SAMPLED).any()
    assert capsys.readouterr().out
