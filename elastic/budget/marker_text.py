"""What the text of a marker says, and which tokens of a vocabulary look like thinking markers."""

from __future__ import annotations

import re
from typing import Any

from elastic.budget.token_text import added_tokens

# </think>, [/THINK], <|end_of_thought|>, <|END_THINKING|>, <|/think|>, <|thought_end|>
_CLOSING = re.compile(
    r"</[^<>\s]+>|\[/[^\[\]\s]+\]|<\|(?:/|end)[^|<>\s]*\|>|<\|[^|<>\s]*_end\|>", re.IGNORECASE
)
_THINKING = re.compile(
    r"(?<![a-z])(think|thinking|thought|thoughts|reason|reasoning|reflection|scratchpad|analysis|channel"
    r"|inner_prefix|inner_suffix)(?![a-z])",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"no_?think|think_(on|off)|effort", re.IGNORECASE)


def closes(text: str) -> bool:
    """Whether a text is a closing tag and nothing else, white space aside."""
    return _CLOSING.fullmatch(text.strip()) is not None


def bare_end(text: str) -> str | None:
    """The closing tag inside a longer text; None where the text is the tag itself, or has none or several."""
    tags = _CLOSING.findall(text)
    return tags[0] if len(tags) == 1 and tags[0] != text else None


def thinking_tokens(tokenizer: Any) -> list[str]:
    """Texts of the added tokens that look like thinking markers, in the order of their ids.

    For example "<think>", "[THINK]", "<seed:think>", "<|begin_of_thought|>", "<|channel|>", "◁/think▷".
    """
    texts = [str(token) for _, token in sorted(added_tokens(tokenizer).items())]
    return [text for text in texts if _THINKING.search(text) and not _SWITCH.search(text)]
