"""The tables of a training configuration that say what is learned: model, data, reward, budgets, rollouts."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from elastic.budget import Budget
from elastic.data.columns import check_columns
from elastic.data.filters import AnswerKind, Filters
from elastic.rewards.stated import Boxes
from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class ModelConfig(Section):
    """``[model]``: which model is trained, and its markers.

    Attributes:
        path: a Hugging Face directory or hub id, or ``tiny`` for the embedded model.
        dtype: of the weights. 16-bit weights would lose updates smaller than their rounding, so they are
            refused where they are trained; ``train.mixed_precision`` computes in 16 bits over float32 ones.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        attention: of prompts in rollouts, see `elastic.load_model`.
        allow_missing: accept a checkpoint that lacks some weights (they are then random) or has unknown ones.
        start_marker: text that opens thinking; where neither marker is given, the well-known pair that the
            vocabulary has as tokens, else ``<think>`` and ``</think>``.
        end_marker: text that closes it.
        ends: other texts with which the model ends thinking, as ``<tool_call>``.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    TABLE: ClassVar[str] = "model"

    path: str = limited()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    attention: str = "auto"
    allow_missing: bool = False
    start_marker: str | None = None
    end_marker: str | None = None
    ends: tuple[str, ...] = ()
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class DataConfig(Section):
    """``[data]``: the problems that the model is trained on, and how they become prompts.

    Attributes:
        source: a file, a directory, a named set or a set on the hub, as of `elastic.data.load`.
        count: problems; the first ones that are kept, all if absent. A generated set needs it.
        split: of the source; absent for ``train`` if it is a named set that has it, else for the only or
            first one. A file has none.
        seed: of a generated set's draw.
        columns: [what, column] pairs, as ``["answer", "reward_model.ground_truth"]``; see docs/data.md.
        min_prompt_chars: leave out shorter problems; characters, template and suffix not counted.
        max_prompt_chars: leave out longer ones.
        min_pass_rate: leave out problems with a lower pass rate, a share in [0, 1] from the source's column.
        max_pass_rate: leave out those with a higher one.
        answer_kind: leave out problems whose answer is no ``integer``, or no ``number``.
        chat: wrap prompts in the tokenizer's chat template; ``auto`` does so for files if there is one.
        system: system message of the chat; empty for the template's own, if it has one.
        suffix: a line behind each problem, as "Put the final answer in \\boxed{}."
        add_special_tokens: for prompts without the template. True puts the tokenizer's own special tokens (a
            BOS) in front, false leaves prompts as they are; absent does so with a warning where one lacks.
        shuffle: a new order each epoch, from ``train.seed``.
    """

    TABLE: ClassVar[str] = "data"

    source: str = limited()
    count: int | None = limited(None, low=1)
    split: str | None = None
    seed: int = limited(0, low=0)
    columns: tuple[tuple[str, str], ...] = ()
    min_prompt_chars: int | None = limited(None, low=0)
    max_prompt_chars: int | None = limited(None, low=0)
    min_pass_rate: float | None = limited(None, low=0, high=1)
    max_pass_rate: float | None = limited(None, low=0, high=1)
    answer_kind: AnswerKind = "any"
    chat: Literal["auto", "on", "off"] = "auto"
    system: str = ""
    suffix: str = ""
    add_special_tokens: bool | None = None
    shuffle: bool = True

    def check(self) -> None:
        try:
            check_columns(dict(self.columns))
            _ = self.filters
        except ValueError as error:
            raise ValueError(f"data.{error}") from error

    @property
    def filters(self) -> Filters:
        """Which problems are kept."""
        return Filters(**{item.name: getattr(self, item.name) for item in fields(Filters)})


@dataclass(frozen=True)
class RewardConfig(Section):
    """``[reward]``: 1 for a correct answer, optionally with L1's length term (SPEC section 6).

    Attributes:
        name: the correctness reward: ``math`` (`elastic.rewards.math_reward`); ``tiny``, of the embedded
            task; or ``code``, programs run against tests, which is not possible yet (`check_available`).
        boxes: of ``math``: ``last`` takes the last box, ``all`` the list of the different ones.
        answer_tags: of ``math``: whether the last ``<answer>...</answer>`` has precedence.
        length: ``none``, ``l1-exact`` or ``l1-max``; the prompt then asks for N tokens.
        alpha: reward per token of the length term.
        target_min: least N, drawn uniformly for each prompt; by default the lesser of 100 and ``target_max``.
        target_max: greatest N; by default 4000 or what a row may sample, whichever is less.
    """

    TABLE: ClassVar[str] = "reward"

    name: Literal["math", "tiny", "code"] = "math"
    boxes: Boxes = "last"
    answer_tags: bool = False
    length: Literal["none", "l1-exact", "l1-max"] = "none"
    alpha: float = limited(3e-4, low=0)
    target_min: int = limited(100, low=1)
    target_max: int = limited(4000, low=1)

    def check_available(self) -> None:
        """Raises ValueError where this version cannot give the reward."""
        if self.name == "code":
            raise ValueError(
                "reward.name: 'code' cannot be trained on yet: this version runs no programs against tests. "
                "It grades with 'math' or 'tiny'; in Python, a Trainer takes a reward function of your own"
            )


@dataclass(frozen=True)
class BudgetConfig(Section):
    """``[budget]``: what rollouts may spend (SPEC section 2), the paper's (1K, 1K) by default.

    Attributes:
        thinking: most sampled thinking tokens t*.
        solution: most sampled solution tokens s*.
        total: one cap over both; with ``thinking = "unlimited"`` this is the vanilla hard cut, and
            ``solution`` is unlimited by default.
        closing: what is forced when thinking is cut: a preset's name or a text; absent for the bare marker.
        on_eos: EOS while thinking: ``close`` replaces it with the closing, ``stop`` ends the row.
        on_reopen: a start marker in the solution: ``count`` or ``forbid``.
        on_reclose: an end marker behind a forced close: ``count`` or ``forbid``.
        whole_characters: whether a cut waits, at most three tokens, for the end of a character.
        min_thinking: thinking tokens before which an end is replaced by ``extension``.
        extension: that text.
        max_extensions: how often.
        notices: [used thinking tokens, text] pairs, forced while thinking goes on.
        grace: tokens past ``thinking`` in which a boundary token is waited for.
        boundary: texts a boundary token ends in; absent for newline and sentence ends.
        draw: ``fixed``; ``random``: each group's budgets uniform in [``*_low``, budget]; ``curriculum``:
            from ``*_start``, above or below it, to the budget over ``curriculum_steps``.
        thinking_low: least thinking budget of ``random``.
        solution_low: least solution budget of ``random``; absent for always the full one.
        thinking_start: first thinking budget of ``curriculum``.
        solution_start: first solution budget of ``curriculum``; absent for always the full one.
        curriculum_steps: steps until the budget itself is reached.
        curriculum: how ``curriculum`` gets there: ``linear``, or ``exponential``, by one factor a step
            (arXiv 2508.08940 multiplies its budget by one factor every few steps).
    """

    TABLE: ClassVar[str] = "budget"

    thinking: int | Literal["unlimited"] = limited(1024, low=0)
    solution: int | Literal["unlimited"] = limited(1024, low=1)
    total: int | None = limited(None, low=1)
    closing: str | None = None
    on_eos: Literal["close", "stop"] = "close"
    on_reopen: Literal["count", "forbid"] = "count"
    on_reclose: Literal["count", "forbid"] = "count"
    whole_characters: bool = False
    min_thinking: int = limited(0, low=0)
    extension: str = "Wait"
    max_extensions: int = limited(0, low=0)
    notices: tuple[tuple[int, str], ...] = ()
    grace: int = limited(0, low=0)
    boundary: tuple[str, ...] | None = None
    draw: Literal["fixed", "random", "curriculum"] = "fixed"
    thinking_low: int = limited(0, low=0)
    solution_low: int | None = limited(None, low=1)
    thinking_start: int | None = limited(None, low=0)
    solution_start: int | None = limited(None, low=1)
    curriculum_steps: int | None = limited(None, low=1)
    curriculum: Literal["linear", "exponential"] = "linear"

    def check(self) -> None:
        if self.draw == "fixed":
            return
        if isinstance(self.thinking, str):
            raise ValueError(f"budget.draw: '{self.draw}' needs a finite budget.thinking, got 'unlimited'")
        if self.draw == "random" and self.thinking_low > self.thinking:
            raise ValueError(
                f"budget.thinking_low: must be at most budget.thinking = {self.thinking}, "
                f"got {self.thinking_low}"
            )
        low = self.solution_low
        if self.draw == "random" and low and (isinstance(self.solution, str) or low > self.solution):
            raise ValueError(
                f"budget.solution_low: must be at most a finite budget.solution, got {low} "
                f"with budget.solution = {self.solution!r}"
            )
        if self.draw == "curriculum":
            for name in ("thinking_start", "curriculum_steps"):
                if getattr(self, name) is None:
                    raise ValueError(f"budget.{name}: budget.draw = 'curriculum' needs it")
            if self.solution_start is not None and isinstance(self.solution, str):
                raise ValueError("budget.solution_start: needs a finite budget.solution, got 'unlimited'")
            if self.curriculum == "exponential" and 0 in (self.thinking, self.thinking_start):
                raise ValueError(
                    "budget.curriculum: 'exponential' needs budget.thinking and budget.thinking_start of at "
                    f"least 1, got {self.thinking} and {self.thinking_start}: no factor leads from or to 0"
                )

    def budget(self) -> Budget:
        """The budget that the keys state, at which a curriculum arrives.

        Raises:
            ValueError: it is impossible (SPEC R14, R17).
        """
        try:
            return Budget(
                _limit(self.thinking),
                _limit(self.solution),
                self.total,
                closing=self.closing,
                on_eos=self.on_eos,
                on_reopen=self.on_reopen,
                on_reclose=self.on_reclose,
                whole_characters=self.whole_characters,
                min_thinking=self.min_thinking,
                extension=self.extension,
                max_extensions=self.max_extensions,
                notices=self.notices,
                grace=self.grace,
                boundary=self.boundary,
            )
        except ValueError as error:
            raise ValueError(f"[budget]: {error}") from error

    def bounds(self) -> tuple[Budget, Budget]:
        """The smallest and the largest budget that `draw` gives, each in both phases.

        Raises:
            ValueError: one of them is impossible (SPEC R14, R17).
        """
        final = self.budget()
        if self.draw == "fixed":
            return final, final
        random = self.draw == "random"
        thinking = [final.thinking, self.thinking_low if random else self.thinking_start]
        solution = [final.solution, (self.solution_low if random else self.solution_start) or final.solution]
        try:
            smallest, largest = (
                replace(final, thinking=t, solution=s)
                for t, s in zip(_ordered(thinking), _ordered(solution), strict=True)
            )
        except ValueError as error:
            raise ValueError(f"[budget]: {error}") from error
        return smallest, largest


def _ordered(limits: list[int | None]) -> list[int | None]:
    """Two limits, the lesser first; `check` lets None stand only beside None."""
    finite: list[int | None] = [*sorted(limit for limit in limits if limit is not None)]
    return finite or limits


def _limit(value: int | str) -> int | None:
    return None if isinstance(value, str) else value


@dataclass(frozen=True)
class RolloutConfig(Section):
    """``[rollout]``: how completions are drawn.

    Attributes:
        prompts_per_step: groups per step, over all processes; by default 128, or all problems if fewer.
        samples_per_prompt: completions per group, at least 2: an advantage compares them.
        temperature: also the temperature of the trained policy's logprobs.
        top_k: 0 for off.
        top_p: 1 for off.
        min_p: 0 for off.
        dynamic_sampling: replace groups whose rewards are all equal, so that no gradient comes from them, by
            groups of the next problems (DAPO, arXiv 2503.14476). Metrics then cover the groups that are used,
            and ``sampled_groups`` and ``kept_groups`` count those drawn and those with different rewards.
        max_batches: most batches of groups that a step draws, the first included. What is still equal then is
            used as it is.
        max_rows: rows decoded at once.
        max_new_tokens: ends rows whose budget is unlimited; absent for the model's context.
        attention: of decode steps: ``auto``, ``flash``, ``flex`` or ``sdpa``, see `elastic.RolloutEngine`.
        compile: decode steps through `torch.compile`: ``auto``, ``on`` or ``off``.
    """

    TABLE: ClassVar[str] = "rollout"

    prompts_per_step: int = limited(128, low=1)
    samples_per_prompt: int = limited(8, low=1)
    temperature: float = limited(0.6, above=0, high=100)
    top_k: int = limited(0, low=0)
    top_p: float = limited(1.0, above=0, high=1)
    min_p: float = limited(0.0, low=0, high=1)
    dynamic_sampling: bool = False
    max_batches: int = limited(3, low=2)
    max_rows: int = limited(64, low=1)
    max_new_tokens: int | None = limited(None, low=1)
    attention: Literal["auto", "flash", "flex", "sdpa"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"

    def check(self) -> None:
        if self.samples_per_prompt == 1:
            raise ValueError(
                "rollout.samples_per_prompt: must be at least 2, got 1: advantages compare a prompt's "
                "samples with each other; that of a single one is 0, and nothing would be learned"
            )
