"""Batches of logits, and the op beside the reference."""

import torch

from elastic import ops, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.6},
    {"temperature": 2.5, "top_k": 7},
    {"top_p": 0.9},
    {"top_p": 0.2, "temperature": 0.7},
    {"min_p": 0.05},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"top_k": 100_000, "top_p": 0.99},
]


def batch(rows: int, vocab: int, dtype=torch.float32, scale: float = 3.0, seed: int = 0):
    """logits [rows, vocab], seeds [rows], positions [rows]."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocab, generator=generator) * scale).to(dtype)
    seeds = torch.randint(2**63 - 1, (rows,), generator=generator)
    return logits, seeds, torch.randint(2**40, (rows,), generator=generator)


def assert_like_reference(logits, seeds, positions, masked=None, got=None, **settings):
    """Tokens equal the reference's; logprobs too, but for the last bit of one logarithm."""
    got = ops.sample(logits, seeds, positions, **settings) if got is None else got
    want = reference.sample(logits, seeds, positions, masked=masked, **settings)
    assert got.tokens.tolist() == want.tokens.tolist()
    for name in ("logprobs", "full_logprobs"):
        a, b = getattr(got, name), getattr(want, name)
        torch.testing.assert_close(a, b, rtol=1.2e-7, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    return got


def assert_same(a, b, index=slice(None)):
    """Bit-equal outputs; `index` picks rows of b."""
    for name in ("tokens", "logprobs", "full_logprobs"):
        assert torch.equal(getattr(a, name), getattr(b, name)[index]), name
