"""The linear loss on CUDA: chunks from the free memory, the head's gradient summed by the product, graphs."""

import pytest
import torch

from elastic import ops
from tests.loss.batches import assert_gradient_near
from tests.loss.heads import HEAD_ERROR, random_head

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def results(device, dtype, **options):
    """Loss and gradients of hidden states, weight and bias, on the CPU."""
    head = random_head(dtype, bias=True, lengths=(70, 0, 90, 40, 60))
    leaves = [x.detach().to(device).requires_grad_() for x in head.tensors()]
    batch = head.batch
    there = [x.to(device) if isinstance(x, torch.Tensor) else x for x in batch.positional(batch.logits)[1:]]
    keywords = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.keywords().items()}
    loss = ops.linear_grpo_loss(*leaves[:2], *there, **keywords, bias=leaves[2], **options).loss
    return [x.detach().cpu() for x in (loss, *torch.autograd.grad(loss, leaves))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [64, None])
def test_it_matches_the_cpu(cuda, dtype, chunk):
    expected = results("cpu", dtype, chunk_tokens=chunk)
    got = results(cuda, dtype, chunk_tokens=chunk)
    limit = 2 * HEAD_ERROR[dtype]  # both round
    torch.testing.assert_close(got[0], expected[0], atol=limit, rtol=0)
    for one, other in zip(got[1:], expected[1:], strict=True):
        assert_gradient_near(one, other, limit)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_number_few_tokens_are_one_chunk(cuda, dtype):
    for got, expected in zip(results(cuda, dtype), results(cuda, dtype, chunk_tokens=260), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("chunk", [2, None])
def test_without_gather_forward_and_backward_fit_into_a_cuda_graph(cuda, chunk):
    head = random_head(torch.bfloat16)
    hidden, weight = (x.to(cuda).requires_grad_() for x in (head.hidden, head.weight))
    n = len(hidden)
    rest = (head.batch.targets.to(cuda), torch.full((n,), -3.0, device=cuda))
    rest = (*rest, torch.tensor([0, 7, n], device=cuda), torch.tensor([1.0, -1.0], device=cuda))

    def step():
        loss = ops.linear_grpo_loss(hidden, weight, *rest, chunk_tokens=chunk, gather=False).loss
        return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))

    expected = step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # warm up allocations
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for result in captured:
        result.zero_()
    graph.replay()
    for got, wanted in zip(captured, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-2)
