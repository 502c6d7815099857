"""What is said of prompts before a call runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from elastic.budget.markers import Markers
from elastic.rollout.plan.encoding import special_token_warnings
from elastic.rollout.plan.plan import Plan
from elastic.rollout.plan.starts import ambiguous_prompts


class PromptWarnings:
    """Warns of starts in every call, of special tokens once per engine: a training has thousands of calls."""

    def __init__(self, tokenizer: Any, markers: Markers):
        self._tokenizer, self._markers = tokenizer, markers
        self._said: set[str] = set()  # kinds of warnings

    def say(self, prompts: Sequence[Any], plan: Plan, special: bool | None) -> None:
        """Warns where there is reason to.

        Args:
            prompts: as given.
            special: whether the tokenizer's special tokens were to be added, or None.
        """
        ambiguous = ambiguous_prompts(plan.prompts, plan.starts, self._markers, plan.dropped)
        if ambiguous:
            warnings.warn(ambiguous, stacklevel=4)
        if len(self._said) == 2:
            return
        for kind, message in special_token_warnings(prompts, plan.prompts, self._tokenizer, special).items():
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(message, stacklevel=4)
