"""The packed forward against the plain padded one. G rows a group, P prompt tokens."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from elastic.train.update import layout, tree
from elastic.train.update.attention import TREE_ATTENTION, TreeLayout, tree_attention, tree_attention_of
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.varlen import VarlenLayout, plain_varlen

SMALL = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
MODELS = {
    "qwen2": lambda **kw: Qwen2ForCausalLM(Qwen2Config(**SMALL, **kw)),
    "qwen3": lambda **kw: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=16, **kw)),
    "llama": lambda **kw: LlamaForCausalLM(LlamaConfig(**SMALL, **kw)),
}

# prompts' lengths, completions' lengths, prompt of each; the comment says what a case reaches.
CASES = {
    "groups of two prompts": ([9, 4], [7, 3, 12, 1, 5, 5], [0, 0, 0, 1, 1, 1]),
    "a prompt of one token shares nothing": ([1, 6], [4, 2, 3], [0, 0, 1]),
    "no shared token at all": ([1, 1], [4, 2, 3], [0, 1, 1]),
    "one row": ([5], [8], [0]),
    "one row under a longer prompt": ([10], [4], [0]),
    "groups of other sizes, one of a prompt that shares nothing": (
        [7, 1, 3],
        [3, 4, 5, 2, 6],
        [0, 2, 0, 1, 0],
    ),
    "rows of prompts out of order, one prompt unused": ([5, 3, 7], [6, 2, 30], [2, 0, 2]),
    "lengths so far apart that buckets split": ([12, 3], [40, 39, 2, 1, 41, 3], [0, 1, 0, 1, 0, 1]),
}


def build(name, **kw):
    torch.manual_seed(1)
    model = MODELS[name](**kw).eval()
    model.requires_grad_(True)
    return model


def random_case(case):
    generator = torch.Generator().manual_seed(7)
    prompt_lengths, lengths, prompt_of = CASES[case]

    def ids(n):
        return torch.randint(0, SMALL["vocab_size"], (n,), generator=generator)

    return [ids(n).tolist() for n in prompt_lengths], [ids(n) for n in lengths], prompt_of


def padded_logprobs(model, prompts, completions, prompt_of):
    """Right-padded rows, one forward with a 2-D mask, full logits: what every trainer does."""
    rows = [torch.tensor([*prompts[p], *c.tolist()]) for c, p in zip(completions, prompt_of, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    parts = []
    for row, (completion, p) in enumerate(zip(completions, prompt_of, strict=True)):
        first = len(prompts[p]) - 1
        parts.append(logits[row, first : first + len(completion)].gather(1, completion[:, None])[:, 0])
    return torch.cat(parts)


def packed_logprobs(model, prompts, completions, prompt_of, kernel=None):
    packed = pack(prompts, completions, prompt_of, kernel=kernel)
    logits = packed_logits(model, packed).log_softmax(-1)
    return logits.gather(1, packed.targets[:, None])[:, 0]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kernel", [None, plain_varlen], ids=["sdpa", "by lengths"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "kv_heads"), [("qwen2", 4), ("qwen3", 2), ("llama", 1)])
def test_packed_logprobs_and_gradients_equal_the_padded_forward(name, kv_heads, case, kernel):
    model = build(name, num_key_value_heads=kv_heads)
    prompts, completions, prompt_of = random_case(case)
    weights = torch.linspace(-1, 2, sum(c.numel() for c in completions))
    expected = padded_logprobs(model, prompts, completions, prompt_of)
    expected_gradients = gradients(model, (expected * weights).sum())
    with tree_attention_of(model):
        actual = packed_logprobs(model, prompts, completions, prompt_of, kernel)
        actual_gradients = gradients(model, (actual * weights).sum())
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)
    for key, value in expected_gradients.items():
        # Relative to each tensor's largest entry; a key bias has no gradient but rounding.
        scale = max(value.abs().max().item(), 1e-2)
        error = (actual_gradients[key] - value).abs().max().item() / scale
        assert error < 3e-6, f"{key}: {error}"


def test_gradient_checkpointing_recomputes_under_the_tree_attention():
    model = build("qwen2", num_key_value_heads=2).train()
    case = random_case("groups of two prompts")
    with tree_attention_of(model):
        expected = gradients(model, packed_logprobs(model, *case).sum())
    model._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
    with tree_attention_of(model):
        actual = gradients(model, packed_logprobs(model, *case).sum())
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=0, atol=0, msg=key)


def test_every_case_of_padding_is_reached():
    layouts = {case: pack(*random_case(case)).layout for case in CASES}
    assert len(layouts["lengths so far apart that buckets split"].buckets) > 1
    assert any(layout.padding_slots.numel() for layout in layouts.values())
    assert layouts["no shared token at all"].prompt_width == 0
    assert layouts["one row"].buckets[0].mask is None
    assert layouts["one row under a longer prompt"].buckets[0].mask.shape == (1, 1, 4, 13)


@pytest.mark.parametrize(
    ("prompt", "completion", "cells"),
    [(2000, 30000, 0), (30000, 30000, 0), (40000, 2000, 0), (30000, 500, 500 * 30500)],
)
def test_long_rows_make_no_mask_of_their_length(prompt, completion, cells):
    (bucket,) = TreeLayout.build([prompt], [completion], [0], torch.device("cpu")).buckets
    assert (0 if bucket.mask is None else bucket.mask.numel()) == cells


def test_buckets_respect_the_padding_limit():
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 100, (64,), generator=generator).tolist()
    prompts = torch.randint(0, 30, (8,), generator=generator).tolist()
    prompt_of = [row // 8 for row in range(64)]
    built = TreeLayout.build(prompts, lengths, prompt_of, torch.device("cpu"))
    cells = sum(b.rows * b.width * (b.prompt_width + b.width) for b in built.buckets)
    needed = sum(n * (prompts[p] + n) for n, p in zip(lengths, prompt_of, strict=True))
    assert cells * (1 - layout._MAX_PADDING_SHARE) <= needed
    assert sum(b.rows for b in built.buckets) == 64


def test_packed_sequence_holds_each_prompt_once_and_no_padding():
    packed = pack(
        [[1, 2, 3], [4, 5]], [torch.tensor([10, 11]), torch.tensor([12]), torch.tensor([13, 14])], [0, 0, 1]
    )
    assert packed.input_ids.tolist() == [[1, 2, 4, 3, 10, 3, 5, 13]]
    assert packed.position_ids.tolist() == [[0, 1, 0, 2, 3, 2, 1, 2]]
    assert packed.targets.tolist() == [10, 11, 12, 13, 14]
    assert packed.row_offsets.tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize(
    ("prompts", "completions", "prompt_of", "message"),
    [
        ([[1]], [torch.tensor([1])], [0, 0], "1 completions, but prompt_of has 2"),
        ([[1]], [], [], "completions must not be empty"),
        ([[]], [torch.tensor([1])], [0], "prompt 0 has no token"),
        ([[1]], [torch.tensor([], dtype=torch.int64)], [0], "completion 0 has no token"),
    ],
)
def test_pack_refuses_what_cannot_be_packed(prompts, completions, prompt_of, message):
    with pytest.raises(ValueError, match=message):
        pack(prompts, completions, prompt_of)


def test_attention_switch_is_undone_also_after_an_error():
    model = build("qwen2", num_key_value_heads=4)
    own = model.config._attn_implementation
    seen = []

    def fail():
        with tree_attention_of(model):
            seen.append(model.config._attn_implementation)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [TREE_ATTENTION]
    assert model.config._attn_implementation == own != TREE_ATTENTION


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the packed batch's layout"),
        ({"tree": "layout", "attention_mask": torch.ones(1)}, "attention_mask must be None"),
        ({"tree": "layout", "softcap": 30.0}, "softcap or attention sinks"),
        ({"tree": "layout", "dropout": 0.1}, "dropout must be 0, got 0.1"),
        ({"tree": "layout", "s_aux": torch.ones(1)}, "softcap or attention sinks"),
    ],
)
def test_attention_refuses_layers_it_would_compute_wrongly(arguments, message):
    layout = TreeLayout.build([2], [6], [0], torch.device("cpu"))
    arguments = {
        k: layout if v == "layout" else v for k, v in arguments.items() if not isinstance(v, str)
    } | {k: layout for k, v in arguments.items() if isinstance(v, str)}
    x = torch.zeros(1, 1, 8, 4)
    mask = arguments.pop("attention_mask", None)
    with pytest.raises(ValueError, match=message):
        tree_attention(None, x, x, x, mask, **arguments)


@pytest.mark.parametrize("kernel", [None, plain_varlen], ids=["sdpa", "by lengths"])
@pytest.mark.parametrize("window", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(
    ("prompts", "lengths", "prompt_of"),
    [
        ([4], [5, 5], [0, 0]),
        ([4, 2], [5, 3, 5], [0, 1, 1]),
        ([0, 1], [3, 2], [0, 1]),
        ([6], [2], [0]),
        ([3], [8], [0]),
    ],
)
def test_a_window_is_counted_from_each_token_through_its_own_row(
    prompts, lengths, prompt_of, window, kernel, monkeypatch
):
    """Every token's keys, by hand: those of its own row less than `window` positions before it."""
    monkeypatch.setattr(tree, "_LEAST_PIECE", 3)
    arguments = (prompts, lengths, prompt_of, torch.device("cpu"))
    layout = VarlenLayout.build(*arguments, kernel) if kernel else TreeLayout.build(*arguments)
    tokens = sum(prompts) + sum(lengths)
    value = torch.eye(tokens)[None, None]  # the output tells how much of each key a query took
    query = torch.zeros(1, 1, tokens, tokens)
    seen, _ = tree_attention(None, query, query, value, tree=layout, sliding_window=window)
    places = [torch.arange(sum(prompts[:p]), sum(prompts[: p + 1])) for p in range(len(prompts))]
    rows, start = list(places), sum(prompts)
    for length, prompt in zip(lengths, prompt_of, strict=True):
        rows.append(torch.cat([places[prompt], torch.arange(start, start + length)]))
        start += length
    expected = torch.zeros(tokens, tokens)
    for row in rows:
        for position, token in enumerate(row):
            keys = row[max(0, position + 1 - window) : position + 1]
            expected[token] = 0
            expected[token, keys] = 1 / len(keys)
    torch.testing.assert_close(seen[0, :, 0], expected)
