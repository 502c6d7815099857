"""From problems to the prompts of a step."""

from collections.abc import Sequence
from typing import Any

from elastic.data import NAMED_SETS, Problem
from elastic.rewards.length import l1_prompt
from elastic.rollout import chat_prompts
from elastic.train.sections import DataConfig, RewardConfig
from elastic.train.seeds import Stream, generator


class Prompts:
    """Texts for the rollout engine, and the lengths they ask for.

    Args:
        tokenizer: of the model.
        data: whether and how the chat template is applied.
        reward: whether prompts ask for a length (L1).
        seed: of the lengths.

    Raises:
        ValueError: a chat template is needed and the tokenizer has none, or an option that only a template
            can place.
    """

    def __init__(self, tokenizer: Any, data: DataConfig, reward: RewardConfig, seed: int) -> None:
        has_template = getattr(tokenizer, "chat_template", None) is not None
        if data.chat == "on" and not has_template:
            raise ValueError("data.chat: 'on', but the tokenizer has no chat template")
        self._chat = data.chat == "on" or (
            data.chat == "auto" and has_template and data.source not in NAMED_SETS
        )
        for name, value in (("data.system", data.system), ("data.suffix", data.suffix)):
            if value and not self._chat:
                raise ValueError(
                    f"{name}: needs the chat template, which is off; prompts are complete as they stand"
                )
        if reward.length != "none" and not self._chat:
            raise ValueError(
                f"reward.length: '{reward.length}' adds a sentence to the question, which needs"
                " the chat template"
            )
        self._tokenizer, self._data, self._reward, self._seed = tokenizer, data, reward, seed

    def lengths(self, step: int, groups: range) -> list[int | None]:
        """The N that each group's prompt asks for; None without a length reward."""
        if self._reward.length == "none":
            return [None] * len(groups)
        low, high = self._reward.target_min, self._reward.target_max
        return [generator(self._seed, Stream.LENGTHS, step, group).randint(low, high) for group in groups]

    def longest(self, count: int) -> list[int | None]:
        """The greatest N for so many prompts, for checks of their length."""
        return [None if self._reward.length == "none" else self._reward.target_max] * count

    def render(self, problems: Sequence[Problem], lengths: Sequence[int | None] | None = None) -> list[str]:
        """The prompts, template and generation prompt included.

        Args:
            problems: one a prompt.
            lengths: as `lengths` gave them; None for an evaluation, which asks for no length.
        """
        if not self._chat:
            return [problem.prompt for problem in problems]
        texts = []
        for problem, length in zip(problems, lengths or [None] * len(problems), strict=True):
            parts = [
                problem.prompt,
                self._data.suffix,
                l1_prompt(self._reward.length, length) if length else "",
            ]
            texts.append("\n".join(part for part in parts if part))
        return chat_prompts(self._tokenizer, texts, system=self._data.system or None)
