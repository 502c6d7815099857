"""The op of a step's attention against an oracle in float64, behind every backend.

flash-attn is a stand-in that checks its arguments; flex_attention runs uncompiled.
"""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from elastic.rollout.attention import flex
from elastic.rollout.attention.attend import attend
from elastic.rollout.attention.flash import flash_packages
from elastic.rollout.attention.masked import length_mask, masked_attention
from tests.rollout.attention.oracle import oracle

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

FLASH = "flash:fa3_fwd_interface"
WIDTH, VALUE_WIDTH = 8, 8
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# pools as (rows, columns), with the lengths of their rows
POOLS = {
    "one pool": [(4, 11, [1, 11, 6, 7])],
    "one row": [(1, 5, [3])],
    "three pools, one of them unused": [(2, 4, [4, 1]), (0, 9, []), (3, 300, [300, 129, 128])],
}


@pytest.fixture(params=["sdpa", FLASH, "flex"])
def backend(request, stand_in, monkeypatch):
    monkeypatch.setattr(flex, "compiled", lambda *variant: flex_attention)
    return request.param


def inputs(pools, heads, key_heads, dtype=torch.float32, sinks=False, value_width=VALUE_WIDTH):
    torch.manual_seed(0)
    keys, values = [], []
    for rows, columns, _ in pools:
        # Slots in use and columns are a part of the store, as in the cache.
        store = torch.randn(rows + 1, key_heads, columns + 2, WIDTH, dtype=dtype)
        keys.append(store[:rows, :, :columns])
        values.append(torch.randn(rows + 1, key_heads, columns, value_width, dtype=dtype)[:rows])
    lengths = torch.tensor([length for *_, own in pools for length in own])
    query = torch.randn(len(lengths), 1, heads, WIDTH, dtype=dtype).transpose(1, 2)
    return query, keys, values, lengths, (torch.linspace(-2, 2, heads).to(dtype) if sinks else None)


@pytest.mark.parametrize("pools", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 1), (6, 2)])
@pytest.mark.parametrize(
    ("window", "softcap", "sinks"), [(0, 0.0, False), (3, 0.0, False), (0, 2.0, False), (130, 1.5, True)]
)
def test_rows_read_their_own_columns(backend, pools, heads, key_heads, window, softcap, sinks):
    query, keys, values, lengths, own = inputs(pools, heads, key_heads, sinks=sinks)
    expected, _ = oracle(query, keys, values, lengths, 0.3, window, softcap, own)
    for dtype in (torch.int32, torch.int64):
        got = attend(query, keys, values, lengths.to(dtype), 0.3, window, softcap, own, backend)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("softcap", "sinks"), [(0.0, False), (2.0, False), (0.0, True)])
def test_sixteen_bits_keep_their_dtype(backend, dtype, softcap, sinks):
    query, keys, values, lengths, own = inputs(POOLS["one pool"], 4, 2, dtype, sinks)
    expected, _ = oracle(query, keys, values, lengths, 0.3, 4, softcap, own)
    got = attend(query, keys, values, lengths, 0.3, 4, softcap, own, backend)
    assert got.dtype == dtype
    assert got.is_contiguous()
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCE[dtype], rtol=0)


def test_what_stands_behind_a_row_does_not_matter(backend):
    query, keys, values, lengths, _ = inputs(POOLS["one pool"], 4, 2)
    before = attend(query, keys, values, lengths, 0.3, 0, 0.0, None, backend)
    keys[0][0, :, 1:], values[0][0, :, 1:] = 7.0, 9.0
    assert torch.equal(before, attend(query, keys, values, lengths, 0.3, 0, 0.0, None, backend))


@pytest.mark.parametrize("backend", ["sdpa"])
def test_values_may_be_narrower_than_keys(backend):
    query, keys, values, lengths, _ = inputs(POOLS["one pool"], 4, 2, value_width=3)
    expected, _ = oracle(query, keys, values, lengths, 0.3)
    got = attend(query, keys, values, lengths, 0.3, 0, 0.0, None, backend)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


def test_flash_is_given_the_slots_without_a_copy(stand_in):
    pools = POOLS["three pools, one of them unused"]
    query, keys, values, lengths, _ = inputs(pools, 4, 2)
    attend(query, keys, values, lengths, 0.3, 5, 0.0, None, FLASH)
    attend(query, keys, values, lengths, 0.3, 0, 0.0, None, FLASH)
    shapes = [(2, 4, 2, WIDTH), (3, 300, 2, WIDTH)]
    assert [call[0] for call in stand_in.calls] == 2 * shapes
    assert [call[1] for call in stand_in.calls] == 2 * [keys[0].data_ptr(), keys[2].data_ptr()]
    assert [call[2] for call in stand_in.calls] == 2 * [[4, 1], [300, 129, 128]]
    assert [call[3] for call in stand_in.calls] == [(4, 0), (4, 0), (-1, -1), (-1, -1)]


@pytest.mark.parametrize("window", [0, 1, 100, 128, 129])
def test_flex_visits_the_blocks_that_hold_a_row_s_columns_and_no_others(window):
    lengths = torch.tensor([1, 127, 128, 129, 256, 257, 384])
    blocks = flex.length_blocks(lengths, 390, window, 3)
    for row, length in enumerate(lengths.tolist()):
        first = max(0, length - window) if window else 0
        number = int(blocks.kv_num_blocks[row, 0, 0])
        assert blocks.kv_indices[row, 0, 0, :number].tolist() == list(
            range(first // 128, (length - 1) // 128 + 1)
        )
    assert blocks.kv_indices.max() < 4


@pytest.mark.parametrize(("window", "softcap", "sinks"), [(0, 0.0, False), (3, 2.0, True)])
def test_the_op_passes_the_checks_of_torch(window, softcap, sinks):
    query, keys, values, lengths, own = inputs(POOLS["three pools, one of them unused"], 4, 2, sinks=sinks)
    args = (query, keys, values, lengths, 0.3, window, softcap, own, "sdpa")
    torch.library.opcheck(attend, args)


def test_a_mask_of_its_own_for_every_head_is_heeded():
    """As a model makes it that changes the mask it is given."""
    query, keys, values, lengths, _ = inputs(POOLS["one pool"], 4, 2)
    mask = length_mask(lengths, 11, 0, torch.float32).repeat(1, 4, 1, 1)
    mask[:, 1, :, 0] -= 2.0
    got = masked_attention(query, keys[0], values[0], mask, 0.3)
    for head in range(4):
        plain = masked_attention(query, keys[0], values[0], mask[:, head : head + 1], 0.3)
        torch.testing.assert_close(got[:, :, head], plain[:, :, head], atol=1e-6, rtol=0)
    assert not torch.allclose(
        got[:, :, 1], masked_attention(query, keys[0], values[0], mask[:, :1], 0.3)[:, :, 1]
    )


def test_no_rows_are_no_error():
    query, keys, values, lengths, _ = inputs([(0, 5, [])], 4, 2)
    lengths = lengths.long()
    assert attend(query, keys, values, lengths, 0.3, 0, 0.0, None, "sdpa").shape == (0, 1, 4, VALUE_WIDTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "flash"}, "backend: expected flash:MODULE, flex or sdpa, got 'flash'"),
        ({"backend": "eager"}, "backend: expected flash:MODULE, flex or sdpa, got 'eager'"),
        ({"query": torch.zeros(4, 4, 2, WIDTH)}, r"query: expected .* one token per row, got \[4, 4, 2, 8\]"),
        ({"query": torch.zeros(4, 3, 1, WIDTH)}, "query: expected a multiple of the 2 key heads, got 3"),
        ({"values": []}, "keys, values: expected one of each per pool, got 1 and 0"),
        ({"values": [torch.zeros(4, 2, 10, 8)]}, r"keys, values: expected .* alike"),
        ({"query": torch.zeros(5, 4, 1, WIDTH)}, "keys, lengths: expected 5 rows, as the query has, got 4"),
        ({"lengths": torch.ones(3)}, r"expected 4 rows, as the query has, got 4 and \[3\]"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    query, keys, values, lengths, _ = inputs(POOLS["one pool"], 4, 2)
    given = {"query": query, "keys": keys, "values": values, "lengths": lengths, "backend": "sdpa"} | change
    with pytest.raises(ValueError, match=message):
        attend(**given, scale=1.0, window=0, softcap=0.0, sinks=None)


@pytest.mark.parametrize("kind", ["flash", "flex", "sdpa"])
def test_the_kernels_of_a_gpu_read_their_own_columns(cuda, kind):
    """Of head dimension 128 in bfloat16, which every package has."""
    modules = flash_packages(cuda)[0] if kind == "flash" else {}
    if kind == "flash" and not modules:
        pytest.skip("no flash-attn package for this device")
    torch.manual_seed(0)
    lengths = [300, 1, 128, 129, 7]
    pools = [(2, 304), (3, 160)]
    stores = [torch.randn(2, rows + 1, 2, columns, 128).bfloat16() for rows, columns in pools]
    keys, values = zip(*((store[0, :-1], store[1, :-1]) for store in stores), strict=True)
    query = torch.randn(5, 8, 1, 128).bfloat16()
    expected, _ = oracle(query, keys, values, torch.tensor(lengths), 0.1)
    moved = [[part.to(cuda) for part in parts] for parts in (keys, values)]
    for backend in [f"flash:{module}" for module in modules] or [kind]:
        own = torch.tensor(lengths, device=cuda)
        got = attend(query.to(cuda), *moved, own, 0.1, 0, 0.0, None, backend)
        torch.testing.assert_close(got.cpu().double(), expected, atol=2e-2, rtol=0)
