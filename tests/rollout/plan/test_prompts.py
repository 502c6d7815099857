"""Prompts through a chat template."""

import pytest

from elastic.data import Problem
from elastic.rollout import chat_prompts
from tests.rollout.small_models import make_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:<think>{% if not enable_thinking %}</think>{% endif %}{% endif %}"
)


@pytest.fixture
def chat():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_texts_conversations_and_problems_become_prompts(chat):
    conversation = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "1+1"},
    ]
    prompts = chat_prompts(chat, ["2+2", conversation, Problem("3+3", "6")])
    assert prompts == ["u:2+2\na:<think>", "u:hi\na:yo\nu:1+1\na:<think>", "u:3+3\na:<think>"]


def test_thinking_can_be_switched_off_and_a_system_message_added(chat):
    assert chat_prompts(chat, ["2"], thinking=False, system="s") == ["s:s\nu:2\na:<think></think>"]


@pytest.mark.parametrize("messages", ["hi", {"role": "user"}, 3, [5], [[]], [["hi"]]])
def test_other_things_are_refused(chat, messages):
    with pytest.raises(TypeError, match="messages"):
        chat_prompts(chat, messages)


def test_no_messages_and_no_template_are_refused(chat, tokenizer):
    with pytest.raises(ValueError, match="messages: expected at least one"):
        chat_prompts(chat, [])
    with pytest.raises(ValueError, match="no chat template"):
        chat_prompts(tokenizer, ["hi"])
