"""Prompts from messages, through the tokenizer's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# How a message says that it begins with a thought: <think>, [THINK], <|begin_of_thought|>.
_THOUGHT = re.compile(r"(?i)\s*([<\[◁](?!/)[^\s<>\[\]]*(?:think|thought|reason)[^\s<>\[\]]*[>\]▷])")
_CLOSED = r"(?:[<\[◁]/[^\s<>\[\]]+[>\]▷]\s*)?"


class ChatPrompt(str):
    """A prompt that ends in what the assistant has written so far.

    Attributes:
        prefill: the assistant's text, with which the prompt ends. Where its rows start (SPEC R19) is read
            from it: in the phase of a row that has written it itself.
    """

    prefill: str

    def __new__(cls, text: str, prefill: str) -> ChatPrompt:
        prompt = super().__new__(cls, text)
        prompt.prefill = prefill
        return prompt


def chat_prompts(
    tokenizer: Any,
    messages: Sequence[Any],
    thinking: bool = True,
    *,
    system: str | None = None,
    **template_arguments: Any,
) -> list[str]:
    """Prompts that end where the assistant's turn begins, or goes on.

    A conversation whose last message is the assistant's is continued in it. A message that opens thinking
    itself ("<think>First") is put behind the template's generation prompt as it stands, because templates
    take thoughts out of messages, or close an empty one in front of them; any other one is rendered as the
    template renders the assistant's words, without the end of the turn.

    Args:
        tokenizer: with a chat template.
        messages: one entry per prompt: a text (the user's message), a conversation (a list of dicts with role
            and content), or a record with a `prompt` attribute, such as `elastic.data.Problem`.
        thinking: passed to the template as `enable_thinking`; templates without the switch ignore it.
        system: a system message put in front of texts and records.
        template_arguments: passed to the template.

    Returns:
        Texts with the template's special tokens written out, to be tokenised as they stand. Those that
        continue a message are of `ChatPrompt`, by which `RolloutEngine.generate` knows the phase they end in.

    Raises:
        TypeError: an entry of another kind.
        ValueError: no messages, the tokenizer has no chat template or one that fails, or the template does
            not end a prompt in the assistant's message as it was given.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages: expected a list, one entry per prompt, got {type(messages).__name__}")
    if not messages:
        raise ValueError("messages: expected at least one, got an empty list")
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("tokenizer: has no chat template; give the prompts as texts")
    arguments = {"tokenize": False, "enable_thinking": thinking, **template_arguments}
    return [
        _prompt(tokenizer, _conversation(entry, system), arguments, f"messages: entry {k}")
        for k, entry in enumerate(messages)
    ]


def _prompt(tokenizer: Any, conversation: list[Any], arguments: dict[str, Any], where: str) -> str:
    if conversation[-1].get("role") != "assistant":
        return _templated(tokenizer, conversation, add_generation_prompt=True, **arguments)
    text = conversation[-1].get("content")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: expected a text of the assistant to go on, got {text!r}")
    if thought := _THOUGHT.match(text):
        head = _templated(tokenizer, conversation[:-1], add_generation_prompt=True, **arguments)
        # Which may have opened a thought itself, or opened and closed one.
        head = re.sub(rf"{re.escape(thought[1])}\s*{_CLOSED}\Z", "", head)
        return ChatPrompt(head + text, text)
    try:
        prompt = _templated(tokenizer, conversation, continue_final_message=True, **arguments)
    except ValueError as error:  # the library prints the whole conversation
        raise ValueError(f"{where}: the chat template leaves the assistant's last message out") from error
    for prefill in (text, text.rstrip(), text.strip()):
        if prompt.endswith(prefill):
            return ChatPrompt(prompt, prefill)
    raise ValueError(f"{where}: the chat template rewrites the assistant's last message {text!r}")


def _templated(tokenizer: Any, conversation: list[Any], **arguments: Any) -> str:
    try:
        prompt: str = tokenizer.apply_chat_template(conversation, **arguments)
    except (ImportError, ValueError):  # of jinja2 that is missing, of transformers itself
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
