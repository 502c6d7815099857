"""A whole training configuration: read, checked against itself and the machine, written back."""

import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from elastic.data.files import read_text
from elastic.data.loading import NAMED_SETS, check_source
from elastic.data.sets import SETS
from elastic.integrations.vllm.installed import require_vllm
from elastic.models import tiny
from elastic.models.adapter_files import is_adapter
from elastic.sampling import Sampling
from elastic.train.config.adapter import AdapterConfig
from elastic.train.config.budget import BudgetConfig
from elastic.train.config.consent import check_consent
from elastic.train.config.loop import EvalConfig, LoggingConfig, LoopConfig
from elastic.train.config.methods import settings
from elastic.train.config.no_effect import left_out
from elastic.train.config.optim import OptimConfig
from elastic.train.config.reward import NO_CORRECTNESS, OVERLONG, RewardConfig
from elastic.train.config.rollouts import DataConfig, ModelConfig, RolloutConfig
from elastic.train.config.schema import Section, to_dict, to_toml
from elastic.train.config.updates import LossConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Why float16 weights are not trained, and what to take instead.
NO_FLOAT16 = (
    'in which small gradients become 0; use model.dtype = "bfloat16", whose updates add up in float32 copies '
    'of the weights, or "float32"'
)

# Keys that may change when a run is resumed; any other change would make it another run.
RESUMABLE = (
    *("train.steps", "train.save_every", "train.keep_checkpoints", "train.resume", "train.output_dir"),
    *("eval.*", "logging.*", "model.device", "train.allow_changes", "reward.async_timeout_s"),
    *("train.best", "train.best_is", "train.patience"),
    *(
        "adapter.merge",
        "model.allow_missing",
        "reward.workers",
    ),  # weights come from the checkpoint; grades are the same
)
# Keys for memory and speed may change too; results then change by rounding only.
ROUNDING = (
    *("rollout.max_rows", "train.accumulation_steps", "train.micro_batch_tokens"),
    *("loss.linear", "loss.linear_chunk_tokens", "loss.skip_zero_advantage"),
    *("model.attention", "model.gradient_checkpointing", "model.offload_activations", "train.attention"),
    *("rollout.attention", "rollout.compile", "rollout.ranks"),
    *("rollout.engine", "rollout.vllm_memory", "adapter.rollouts"),
)


@dataclass(frozen=True)
class TrainConfig(Section):
    """All tables; see `elastic.train.config.rollouts`, `.budget`, `.updates` and `.optim` for their keys.

    Attributes:
        method: a key of `elastic.train.config.methods.PRESETS`, whose values keys get that are not given;
            absent for none.
    """

    model: ModelConfig
    data: DataConfig
    train: LoopConfig
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    method: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> "TrainConfig":
        """Reads a TOML file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not UTF-8, not TOML (names line and column), an unknown or missing key, a value out of
                range, or values that do not go together.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no such configuration file: {path}")
        try:
            tables = tomllib.loads(read_text(path))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ValueError(f"{path}: not TOML: {error}") from error
        try:
            return cls.from_table(tables)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def sampling(self) -> Sampling:
        """How the rollouts draw, but for their seeds. Pieces of thoughts that were cut have no kept sets."""
        rollout = self.rollout
        most_kept = 0 if self.budget.cuts else rollout.most_kept
        filters = (rollout.top_k, rollout.top_p, rollout.min_p)
        return Sampling(rollout.temperature, *filters, most_kept=most_kept)

    def check(self) -> None:
        if self.method is not None:
            for name, values in settings(self).items():
                self._let_follow(name, **values)
        if self.budget.thinking == "unlimited" and self.budget.total is not None:
            self._let_follow("budget", solution="unlimited")
        if self.reward.functions:
            self._let_follow("reward", name=self.reward.following_functions())
        if self.budget.cuts:
            self._check_cuts(self.budget.cuts[-1])
        # R14, R17: budgets that cannot be are refused here.
        _, budget = self.budget.bounds()
        most = self.rollout.max_new_tokens if budget.max_sampled is None else budget.max_sampled
        if self.data.count is not None:
            self._let_follow("rollout", prompts_per_step=min(self.rollout.prompts_per_step, self.data.count))
        self._check_lengths(most)
        self._check_rewards(most)
        rows = self.rollout.prompts_per_step * self.rollout.samples_per_prompt
        pieces = self.train.minibatches * self.train.accumulation_steps
        if pieces > rows:
            raise ValueError(
                "train.minibatches x train.accumulation_steps: must be at most the "
                f"{rows} rows of a step (rollout.prompts_per_step x samples_per_prompt), got {pieces}"
            )
        if self.loss.loss == "dr_grpo" and self.loss.max_length is None and budget.max_sampled is None:
            raise ValueError("loss.max_length: loss.loss = 'dr_grpo' needs it where the budget is unlimited")
        if self.train.best is not None and not self.eval.every:
            raise ValueError(f"train.best: '{self.train.best}' needs evaluations, and eval.every is 0")
        for table in (self.data, self.eval):
            if table.source in NAMED_SETS and table.count is None:
                raise ValueError(f"{table.TABLE}.count: the generated set '{table.source}' needs it")
        if self.eval.every and self.eval.source is None and self.data.source not in NAMED_SETS:
            raise ValueError(
                "eval.source: needed where eval.every is above 0: a file has no test split of its own"
            )
        if self.data.count is not None and self.data.count < self.rollout.prompts_per_step:
            raise ValueError(
                "rollout.prompts_per_step: must be at most data.count = "
                f"{self.data.count}, got {self.rollout.prompts_per_step}"
            )
        check_consent(self.train.allow_changes, self)

    def _check_cuts(self, last: int) -> None:
        """Checks ``budget.cuts``, whose last one is given, against the other keys."""
        self._let_follow("budget", thinking=last)
        thinking = self.budget.thinking
        if isinstance(thinking, int) and last > thinking:
            raise ValueError(f"budget.cuts: must be at most budget.thinking = {thinking}, got {last}")
        for key, only in (("engine", "own"), ("ranks", "all")):
            if (value := getattr(self.rollout, key)) != only:
                raise ValueError(
                    f"rollout.{key}: must be '{only}' with budget.cuts, which cut one thought several times, "
                    f"got '{value}'"
                )
        if self.rollout.dynamic_sampling:
            raise ValueError("rollout.dynamic_sampling: cannot be true with budget.cuts")
        if self.reward.length != "none":
            raise ValueError(f"reward.length: must be 'none' with budget.cuts, got '{self.reward.length}'")
        self.budget.cut_budgets()

    def _check_lengths(self, most: int | None) -> None:
        """Checks the lengths that prompts ask for against `most`, the most tokens that a row may sample."""
        reward = self.reward
        if reward.length != "none":
            longest = reward.target_max if most is None else min(reward.target_max, most)
            longest = reward.target_max if "target_max" in reward.given else longest
            self._let_follow("reward", target_max=longest, target_min=min(reward.target_min, longest))
            if most is not None and longest > most:
                raise ValueError(
                    f"reward.target_max: must be at most the {most} tokens that a row may sample (by "
                    f"budget.thinking and solution, budget.total or rollout.max_new_tokens), got {longest}"
                )
        if self.reward.target_min > self.reward.target_max:
            raise ValueError(
                f"reward.target_min: must be at most reward.target_max = {self.reward.target_max}, "
                f"got {self.reward.target_min}"
            )

    def _check_rewards(self, most: int | None) -> None:
        """Checks what is rewarded against the other tables; `most` as of `_check_lengths`."""
        reward = self.reward
        if reward.name == NO_CORRECTNESS and not reward.functions:
            raise ValueError("reward.functions: reward.name = 'none' needs some: nothing would be rewarded")
        if reward.name == NO_CORRECTNESS and self.eval.every:
            raise ValueError(
                "reward.name: eval.every needs a reward that says what is correct, got 'none'; name one of "
                "your functions, or 'math'"
            )
        if reward.length != "none" and reward.name not in reward.paid:
            raise ValueError(
                f"reward.length: '{reward.length}' is paid on the reward of correct answers, so "
                f"reward.functions must have it; reward.name is '{reward.name}'"
            )
        if OVERLONG in reward.functions:
            self._let_follow("reward", overlong_tokens=most)
            tokens, cache = self.reward.overlong_tokens, self.reward.overlong_cache
            if tokens is None:
                raise ValueError(
                    "reward.overlong_tokens: needed, as neither budgets nor other keys limit a row"
                )
            if cache is not None and cache > tokens:
                raise ValueError(
                    f"reward.overlong_cache: must be at most reward.overlong_tokens = {tokens}, got {cache}"
                )

    def _let_follow(self, table: str, **values: Any) -> None:
        """Replaces defaults of a table by values that follow from other tables; keys that were set stay."""
        object.__setattr__(self, table, getattr(self, table).following(**values))

    def for_problems(self, training: int, evaluated: int | None = None) -> "TrainConfig":
        """This configuration with defaults that do not exceed the problems there are.

        Args:
            training: how many problems there are to train on.
            evaluated: how many to evaluate; None for no evaluation.

        Raises:
            ValueError: a step was given more prompts than there are problems.
        """
        rollout = self.rollout.following(prompts_per_step=min(self.rollout.prompts_per_step, training))
        if rollout.prompts_per_step > training:
            raise ValueError(
                f"rollout.prompts_per_step: must be at most the {training} problems of {self.data.source}, "
                f"got {rollout.prompts_per_step}"
            )
        evaluation = self.eval.following(count=min(self.eval.count, evaluated or self.eval.count))
        return replace(self, rollout=rollout, eval=evaluation)

    def preflight(self) -> None:
        """Checks what depends on this machine, and what only a run from a file must not do. Loads nothing.

        Raises:
            ValueError: a reward that cannot be given here; a file or directory that is missing or of the
                wrong kind; float16 weights; an optimizer that cannot be made.
            FileNotFoundError: a missing data file, or a set of unknown name.
            ModuleNotFoundError: a set on the hub without `datasets`, rollouts by vLLM without `vllm`, or an
                8-bit or paged optimizer without `bitsandbytes`.
        """
        self.reward.check_available()
        self.adapter.check_available()
        if self.rollout.engine == "vllm":
            require_vllm()
        if self.logging.wandb is not None and find_spec("wandb") is None:
            raise ModuleNotFoundError("logging.wandb: needs the package wandb: pip install elastic[wandb]")
        for table in (self.data, self.eval):
            if table.source is not None and table.source not in NAMED_SETS:
                try:
                    check_source(table.source)
                except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
                    raise type(error)(f"{table.TABLE}.source: {error}") from error
                if table.source in SETS:
                    self.reward.check_tests(table.TABLE, table.source, [SETS[table.source].kind == "code"])
        if self.model.dtype == "float16":
            raise ValueError(f"model.dtype: is float16, {NO_FLOAT16}")
        self.optim.check_available()
        path = Path(self.model.path)
        is_path = path.is_absolute() or self.model.path.startswith((".", "~")) or path.exists()
        is_model = self.model.path == tiny.NAME or is_adapter(path) or (path / "config.json").is_file()
        if is_path and not is_model:
            raise ValueError(f"model.path: {path} is no model directory, it holds no config.json")
        output = Path(self.train.output_dir)
        if output.exists() and not output.is_dir():
            raise ValueError(f"train.output_dir: {output} is a file")

    @property
    def rollouts_merged(self) -> bool:
        """Whether rollouts run with an adapter merged into the weights."""
        return self.adapter.rollouts == "merged" or self.rollout.engine == "vllm"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; absent keys are left out."""
        return to_dict(self)

    def to_toml(self) -> str:
        """A file that loads to an equal configuration."""
        return to_toml(self, left_out(self))


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """``table.key: old -> new`` for what differs between a run and its resumption.

    Tables are compared, not ``method``: a method is what its keys say.

    Args:
        old: `TrainConfig.to_dict()` of the checkpoint.
        new: that of the configuration to resume with.

    Returns:
        Changes that are not allowed, and changes that alter the run's results by rounding only.
    """
    refused: list[str] = []
    rounding: list[str] = []
    for table in sorted(name for name, value in {**old, **new}.items() if isinstance(value, dict)):
        before, after = old.get(table, {}), new.get(table, {})
        for key in sorted(before.keys() | after.keys()):
            name = f"{table}.{key}"
            if before.get(key) == after.get(key) or {name, f"{table}.*"} & set(RESUMABLE):
                continue
            change = f"{name}: {before.get(key)!r} -> {after.get(key)!r}"
            (rounding if name in ROUNDING else refused).append(change)
    return refused, rounding
