"""From prompts to token ids, and what a tokenizer would have put around them.

Texts are encoded as they stand: a chat template writes its special tokens out, and a second BOS changes every
completion. A raw text has none, though, and where the tokenizer puts a BOS in front of texts by itself, the
model has hardly ever seen one without it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor


def encode_prompts(
    prompts: Any, tokenizer: Any, vocab: int, add_special_tokens: bool | None = None
) -> list[list[int]]:
    """Token ids of prompts.

    Args:
        prompts: texts, or lists or tensors of token ids, which are taken as they are.
        tokenizer: of the texts.
        vocab: ids lie below.
        add_special_tokens: whether texts get the special tokens that the tokenizer puts in front of one.

    Raises:
        TypeError, ValueError: naming the prompt; or a tokenizer whose special tokens would end a prompt.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise TypeError(
            f"prompts: expected a list of texts or of lists of token ids, got {type(prompts).__name__}"
        )
    if add_special_tokens not in (True, False, None):
        raise TypeError(f"add_special_tokens: expected True, False or None, got {add_special_tokens!r}")
    if not prompts:
        raise ValueError("prompts: expected at least one, got an empty list")
    result = []
    for k, prompt in enumerate(prompts):
        ids = _ids(k, prompt, tokenizer, add_special_tokens)
        if not ids:
            raise ValueError(f"prompts: prompt {k} is empty")
        if min(ids) < 0 or max(ids) >= vocab:
            worst = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(f"prompts: prompt {k}: expected token ids 0 .. {vocab - 1}, got {worst}")
        result.append(ids)
    return result


def _ids(k: int, prompt: Any, tokenizer: Any, add_special_tokens: bool | None) -> list[int]:
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        if not ids or not add_special_tokens:
            return ids
        front, back = special_tokens(tokenizer, prompt)
        if back:
            names = tokenizer.convert_ids_to_tokens(back)
            raise ValueError(
                f"add_special_tokens: the tokenizer puts {names} behind a text, where the completion "
                "belongs; write the tokens in front into the prompts instead"
            )
        return [*front, *ids]
    if isinstance(prompt, (Sequence, Tensor)):
        return [_token_id(k, token) for token in (prompt.tolist() if isinstance(prompt, Tensor) else prompt)]
    raise TypeError(f"prompts: prompt {k}: expected a text or token ids, got {prompt!r}")


def _token_id(k: int, token: Any) -> int:
    try:
        return operator.index(token)
    except TypeError as error:
        raise TypeError(f"prompts: prompt {k}: expected integer token ids, got {token!r}") from error


def special_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """What the tokenizer puts in front of a text and behind it by itself; mostly nothing or a BOS."""
    bare = tokenizer.encode(text, add_special_tokens=False)
    full = tokenizer.encode(text, add_special_tokens=True)
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def special_token_warnings(
    prompts: Sequence[Any], ids: Sequence[Sequence[int]], tokenizer: Any, add_special_tokens: bool | None
) -> dict[str, str]:
    """What is suspicious about the first tokens of prompts: a message by kind, with counts and the remedy.

    Args:
        prompts: as given.
        ids: as encoded.
        add_special_tokens: None where the caller has not said what is meant.
    """
    found = {}
    texts = [k for k, prompt in enumerate(prompts) if isinstance(prompt, str)]
    if texts and add_special_tokens is None:
        front, _ = special_tokens(tokenizer, prompts[texts[0]])
        bare = [k for k in texts if list(ids[k][: len(front)]) != front]
        if bare:
            names = " ".join(tokenizer.convert_ids_to_tokens(front))
            found["missing"] = (
                f"prompts: {len(bare)} of {len(prompts)} (first: prompt {bare[0]}) do not start with "
                f"{names}, which the tokenizer puts in front of a text by itself; pass "
                "add_special_tokens=True to have it, or add_special_tokens=False if they are right as is"
            )
    bos = getattr(tokenizer, "bos_token_id", None)
    double = [k for k, tokens in enumerate(ids) if bos is not None and list(tokens[:2]) == [bos, bos]]
    if double:
        remedy = "pass add_special_tokens=False" if add_special_tokens else "apply the chat template once"
        found["double"] = (
            f"prompts: {len(double)} of {len(prompts)} (first: prompt {double[0]}) start with "
            f"{tokenizer.convert_ids_to_tokens(bos)} twice; {remedy}, or take it out of the texts"
        )
    return found
