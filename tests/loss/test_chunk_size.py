"""How many tokens the linear ops take at a time where the caller does not say."""

import pytest
import torch

from elastic import _C, ops

GB = 10**9
LOGITS = 151_936 * 2  # bytes of a token, bfloat16
SUM = 151_936 * 1536 * 4  # of the head's gradient in float32


@pytest.mark.parametrize(
    ("tokens", "free", "expected"),
    [
        (16_384, 100 * GB, 16_384),  # 5.0 GB of logits in a room of 25
        (16_384, 20 * GB, 16_384),  # in a room of 5.0
        (16_385, 19.9 * GB, 8192),  # not in 4.97; 13,299 fit beside the sum
        (100_000, 100 * GB, 65_536),  # 79,197 fit
        (100_000, 0, 4096),  # the host's memory, of which nothing is asked
        (5, 0, 4096),  # the op cuts it to its tokens
        (100_000, 1 * GB, 256),  # no room beside the sum, and no smaller products
        (200, 1000, 200),
    ],
)
def test_all_tokens_or_a_power_of_two_fit_into_a_quarter_of_the_free_memory(tokens, free, expected):
    assert _C.default_chunk_tokens(tokens, LOGITS, SUM, int(free)) == expected


def test_a_little_more_or_less_free_memory_changes_nothing():
    found = {_C.default_chunk_tokens(100_000, LOGITS, SUM, free * GB) for free in range(84, 121)}
    assert found == {65_536}


def products(run):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))


@pytest.mark.cpu_kernels
def test_on_the_cpu_a_chunk_is_4096_tokens():
    n = 4097
    hidden, weight = (torch.ones(*shape, requires_grad=True) for shape in ((n, 1), (2, 1)))
    targets = torch.zeros(n, dtype=torch.int64)
    rest = (targets, torch.zeros(n), torch.tensor([0, n]), torch.ones(1))
    assert products(lambda: ops.linear_grpo_loss(hidden, weight, *rest)) == 2 * 3
    assert products(lambda: ops.linear_token_logprobs(hidden, weight, targets)) == 2
    logprobs, _ = ops.linear_token_logprobs(hidden, weight, targets)
    assert products(lambda: logprobs.sum().backward()) == 2 * 3


@pytest.mark.cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_number_the_bits_are_those_of_4096(dtype):
    generator = torch.Generator().manual_seed(3)
    n, width, vocab = 4100, 4, 11
    arguments = (torch.randint(vocab, (n,), generator=generator), torch.full((n,), -2.0))
    arguments = (*arguments, torch.tensor([0, 9, n]), torch.tensor([1.0, -0.5]))

    def gradients(**chunk):
        leaves = [
            torch.randn(*shape, generator=torch.Generator().manual_seed(4)).to(dtype).requires_grad_()
            for shape in ((n, width), (vocab, width))
        ]
        output = ops.linear_grpo_loss(*leaves, *arguments, **chunk)
        return output.loss, *torch.autograd.grad(output.loss, leaves)

    for got, expected in zip(gradients(), gradients(chunk_tokens=4096), strict=True):
        assert torch.equal(got, expected)
