"""flex_attention is compiled for each variant of attention on its own, whatever the process has compiled."""

import pytest
import torch

from elastic.rollout.attention import flex

VARIANTS = [(0, 0.0, False), (3, 0.0, False), (0, 20.0, False), (0, 0.0, True)]  # window, softcap, sinks


@pytest.fixture
def few(monkeypatch):
    """Dynamo's front half, which fails where a code object would be compiled for a third case."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="eager"))
    flex.compiled.cache_clear()
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        yield
    flex.compiled.cache_clear()


def test_many_variants_are_all_compiled(few):
    torch.manual_seed(0)
    for heads, width in ((4, 8), (2, 16)):
        for window, softcap, sinks in VARIANTS:
            query = torch.randn(3, heads, 1, width)
            keys = torch.randn(3, 2, 12, width)
            sink = torch.randn(heads) if sinks else None
            lengths = torch.tensor([1, 7, 12])
            out = flex.flex_by_lengths(query, keys, keys, lengths, 0.5, window, softcap, sink)
            assert out.shape == (3, 1, heads, width)
            assert out.isfinite().all()
