"""From problems to the prompts of a step or of an evaluation."""

from collections.abc import Iterable, Sequence
from typing import Any

from elastic.budget import Phase
from elastic.data import NAMED_SETS, Problem
from elastic.rewards.length import ask_in_words, user_message
from elastic.rollout import chat_prompts
from elastic.rollout.plan.encoding import encode_prompts
from elastic.train.collect.engines import Engine
from elastic.train.collect.seeds import RandomStream, generator
from elastic.train.config import TrainConfig
from elastic.train.config.reward import RewardConfig
from elastic.train.config.rollouts import DataConfig


class Prompts:
    """Makes the prompts of one source of problems, and draws the lengths that they ask for (L1).

    The prompts of a named set are complete. Those of a file are questions for the chat template, if the
    tokenizer has one and the configuration does not say otherwise.

    Args:
        tokenizer: of the model.
        data: system message, suffix, and whether special tokens are added to prompts without a template.
        reward: whether prompts ask for a length (L1).
        seed: seed of the lengths.
        source: where the problems are from; `data.source` by default.
        chat: whether the chat template is applied; `data.chat` by default.
        table: the configuration's table to name in messages.
        stream: random stream of the lengths.

    Raises:
        ValueError: a chat template is needed and the tokenizer has none, or an option that only a template
            can place.
    """

    def __init__(
        self,
        tokenizer: Any,
        data: DataConfig,
        reward: RewardConfig,
        seed: int,
        *,
        source: str | None = None,
        chat: str | None = None,
        table: str = "data",
        stream: RandomStream = RandomStream.LENGTHS,
    ) -> None:
        source, chat = source or data.source, chat or data.chat
        has_template = getattr(tokenizer, "chat_template", None) is not None
        if chat == "on" and not has_template:
            raise ValueError(f"{table}.chat: 'on', but the tokenizer has no chat template")
        self.chat = chat == "on" or (chat == "auto" and has_template and source not in NAMED_SETS)
        own = None if self.chat else NAMED_SETS.get(source)
        if reward.length != "none" and not self.chat and own is None:
            raise ValueError(
                f"reward.length: '{reward.length}' adds a sentence to the question, which needs"
                f" the chat template; the prompts of {table}.source = '{source}' stand without"
            )
        # A template writes the special tokens that it wants, and the prompts of named sets contain theirs.
        complete = self.chat or source in NAMED_SETS
        self._ask = ask_in_words if own is None else own.ask
        if self.chat and data.add_special_tokens:
            raise ValueError(
                f"data.add_special_tokens: true, but the prompts of {table}.source = '{source}' get theirs"
                " from the chat template"
            )
        self.add_special_tokens = False if complete else data.add_special_tokens
        self._tokenizer, self._data, self._reward = tokenizer, data, reward
        self._seed, self._stream, self._table = seed, stream, table

    @classmethod
    def of_training(cls, tokenizer: Any, config: TrainConfig) -> "Prompts":
        """The prompts of the training problems.

        Raises:
            ValueError: as the class; or a system message or suffix without the template that places it.
        """
        data = config.data
        prompts = cls(tokenizer, data, config.reward, config.train.seed)
        for name, value in (("data.system", data.system), ("data.suffix", data.suffix)):
            if value and not prompts.chat:
                raise ValueError(
                    f"{name}: needs the chat template, which is off; prompts are complete as they stand"
                )
        return prompts

    @classmethod
    def of_evaluation(cls, tokenizer: Any, config: TrainConfig) -> "Prompts":
        """The prompts of the evaluated problems, which ask for lengths as in training.

        `eval.chat` decides about the chat template. Without it `data.chat` does, except that it is not
        applied to a named set, whose prompts are complete, unless the training source is that set too.
        """
        source = config.eval.source or config.data.source
        other = source != config.data.source and source in NAMED_SETS
        return cls(
            *(tokenizer, config.data, config.reward, config.eval.seed),
            source=source,
            chat=config.eval.chat or ("auto" if other else config.data.chat),
            table="eval",
            stream=RandomStream.EVALUATION_LENGTHS,
        )

    def lengths(self, step: int, groups: Iterable[int]) -> list[int | None]:
        """The N that each group's prompt asks for; None without a length reward."""
        if self._reward.length == "none":
            return [None for _ in groups]
        low, high = self._reward.target_min, self._reward.target_max
        return [generator(self._seed, self._stream, step, group).randint(low, high) for group in groups]

    def longest(self, count: int) -> list[int | None]:
        """The greatest N for so many prompts, for checks of their length."""
        return [None if self._reward.length == "none" else self._reward.target_max] * count

    def render(self, problems: Sequence[Problem], lengths: Sequence[int | None]) -> list[str]:
        """The prompts, template and generation prompt included.

        Args:
            problems: one per prompt.
            lengths: as `lengths` gave them.
        """
        data, kind = self._data, self._reward.length
        suffix = data.suffix if self.chat else ""
        texts = [
            user_message(problem.prompt, suffix=suffix, length=kind, target_tokens=length, ask=self._ask)
            for problem, length in zip(problems, lengths, strict=True)
        ]
        if not self.chat or not texts:
            return texts
        try:
            return chat_prompts(self._tokenizer, texts, system=data.system or None)
        except ValueError as error:
            raise ValueError(f'{error}; {self._table}.chat = "off" takes prompts as they stand') from error

    def encode(self, texts: Sequence[str], vocab: int) -> list[list[int]]:
        """Token ids of rendered prompts, as the engine reads them.

        Args:
            texts: of `render`.
            vocab: of the model.
        """
        return encode_prompts(texts, self._tokenizer, vocab, self.add_special_tokens)

    def phases(self, texts: Sequence[str], engine: Engine) -> list[Phase]:
        """The phases in which the rows of rendered prompts start.

        Passing them to the engine avoids its warnings at every step; `check_data` gives them before the run.

        Args:
            texts: of `render`.
            engine: that will complete them.
        """
        encoded = self.encode(texts, engine.limits.vocab) if texts else []
        return [engine.markers.initial_phase(ids) for ids in encoded]
