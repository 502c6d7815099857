"""Prompts from messages, through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def chat_prompts(
    tokenizer: Any,
    messages: Sequence[Any],
    thinking: bool = True,
    *,
    system: str | None = None,
    **template_arguments: Any,
) -> list[str]:
    """Prompts that end where the assistant's turn begins.

    Args:
        tokenizer: with a chat template.
        messages: one entry a prompt: a text (the user's message), a conversation (a list of dicts with role
            and content), or a record with a `prompt` attribute, such as `elastic.data.Problem`.
        thinking: passed to the template as `enable_thinking`; templates without the switch ignore it.
        system: a system message put in front of texts and records.
        template_arguments: passed to the template.

    Returns:
        Texts with the template's special tokens written out, to be tokenised as they stand.

    Raises:
        TypeError: an entry of another kind.
        ValueError: no messages, or the tokenizer has no chat template or one that fails.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages: expected a list, one entry a prompt, got {type(messages).__name__}")
    if not messages:
        raise ValueError("messages: expected at least one, got an empty list")
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("tokenizer: has no chat template; give the prompts as texts")
    return [
        _templated(
            tokenizer,
            _conversation(entry, system),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
            **template_arguments,
        )
        for entry in messages
    ]


def _templated(tokenizer: Any, conversation: list[Any], **arguments: Any) -> str:
    try:
        prompt: str = tokenizer.apply_chat_template(conversation, **arguments)
    except ImportError:  # of jinja2
        raise
    except Exception as error:  # a template may raise anything: it is a program of the model's makers
        raise ValueError(
            f"tokenizer: its chat template fails: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    return prompt


def _conversation(entry: Any, system: str | None) -> list[Any]:
    text = entry if isinstance(entry, str) else getattr(entry, "prompt", None)
    if isinstance(text, str):
        head = [{"role": "system", "content": system}] if system is not None else []
        return [*head, {"role": "user", "content": text}]
    if isinstance(entry, Sequence) and entry and all(isinstance(message, Mapping) for message in entry):
        return list(entry)
    raise TypeError(f"messages: expected a text, a list of messages or a record with a prompt, got {entry!r}")
