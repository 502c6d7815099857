"""`scale_`, with which backward() multiplies a stored gradient."""

import pytest
import torch

from tests.loss.batches import DTYPES

pytestmark = pytest.mark.usefixtures("kernels")


def scale(values, factor):
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    torch.ops.elastic.scale_(values, torch.tensor(factor, dtype=dtype))


# (rows, width, stride, first element): aligned and not, rows narrower than a vector, padded, more of them
# than CTAs, and one that needs several.
LAYOUTS = [
    (3, 32, 32, 0),
    (3, 37, 37, 0),
    (3, 37, 37, 3),
    (5, 1, 1, 1),
    (4, 3, 8, 0),
    (4, 21, 29, 5),
    (2500, 2, 3, 1),
    (2, 9001, 9003, 7),
    (1, 20_000, 20_000, 1),
    (0, 7, 7, 0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_element_is_multiplied_once_and_none_beside_them(dtype, layout):
    rows, width, stride, first = layout
    memory = torch.arange(1, first + rows * stride + 20).remainder(61).to(dtype)
    before = memory.clone()
    values = memory.as_strided((rows, width), (stride, 1), first)
    expected = (values.double() * 0.37).to(dtype)
    inside = torch.zeros_like(memory, dtype=torch.bool)
    inside.as_strided((rows, width), (stride, 1), first).fill_(True)
    scale(values, 0.37)
    torch.testing.assert_close(values, expected)
    assert torch.equal(memory[~inside], before[~inside])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_factor_of_one_changes_no_bit(dtype):
    values = torch.tensor([[0.1, -0.0, torch.inf, torch.nan, 1e-7]]).to(dtype)
    before = values.clone()
    scale(values, 1.0)
    assert torch.equal(values.view(torch.uint8), before.view(torch.uint8))
