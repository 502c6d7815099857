"""The tables of a training configuration that say how long it goes on, how it is evaluated and logged."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from elastic.data.columns import check_columns
from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class LoopConfig(Section):
    """``[train]``: steps, their division into updates, and the output directory.

    Attributes:
        output_dir: of checkpoints, metrics and the final model.
        steps: rollout batches; fewer run only where `patience` or a callback ends the run.
        seed: of the data order, the budgets drawn and every rollout row.
        epochs_per_batch: passes over a rollout batch.
        minibatches: optimizer steps per pass.
        accumulation_steps: micro-batches per optimizer step, of near equal size in tokens.
        micro_batch_tokens: most packed tokens of a micro-batch (a single row may exceed it); raises the
            number of micro-batches above ``accumulation_steps`` where needed. 0 for no limit.
        mixed_precision: ``bf16`` runs updates under autocast over float32 weights, and rollouts on a 16-bit
            copy; ``loss.old_logprobs = "recompute"`` then keeps the copy's rounding out of the ratio.
        attention: of updates. ``flash`` is by lengths, without padding or masks; it needs a GPU, 16-bit
            computation and a kernel of ``flash-attn`` or torch. ``sdpa`` is over padded buckets. ``auto``
            takes flash where it is there and passes a trial.
        resume: ``auto`` goes on from the newest checkpoint in ``output_dir``; ``never`` refuses to start
            where there is a checkpoint or a metric. Neither overwrites a finished run or another run.
        allow_changes: keys that may have other values when the run is resumed, as ``["optim.lr", "loss.*"]``,
            though its results change by them; each change is noted in ``changes.jsonl``.
        save_every: steps between checkpoints; 0 for only the final model. A failure leaves one in any case.
        keep_checkpoints: newest checkpoints kept.
        best: an evaluation's metric, as ``eval/t40_s64/accuracy``, or ``accuracy`` for the mean over the
            evaluated budgets. The model with the best value, the earliest of equals, is kept in ``best/``;
            ``best.json`` names it. Absent for none.
        best_is: the ``greatest`` value or the ``least``.
        patience: evaluations in a row without a better one that end the run; 0 for all steps in any case.
    """

    TABLE: ClassVar[str] = "train"

    output_dir: str = limited()
    steps: int = limited(200, low=1)
    seed: int = limited(0, low=0, high=2**31 - 1)
    epochs_per_batch: int = limited(1, low=1)
    minibatches: int = limited(1, low=1)
    accumulation_steps: int = limited(1, low=1)
    micro_batch_tokens: int = limited(0, low=0)
    mixed_precision: Literal["no", "bf16"] = "no"
    attention: Literal["auto", "flash", "sdpa"] = "auto"
    resume: Literal["auto", "never"] = "auto"
    allow_changes: tuple[str, ...] = ()
    save_every: int = limited(50, low=0)
    keep_checkpoints: int = limited(2, low=1)
    best: str | None = None
    best_is: Literal["greatest", "least"] = "greatest"
    patience: int = limited(0, low=0)

    def check(self) -> None:
        if self.patience and self.best is None:
            raise ValueError(f"train.patience: {self.patience} needs train.best, which says what is better")


@dataclass(frozen=True)
class EvalConfig(Section):
    """``[eval]``: problems answered under several budgets while training goes on.

    Attributes:
        every: steps between evaluations; also after the last step. 0 for none.
        at_start: evaluate the starting model too, as step 0.
        source: as in ``[data]``; absent for the training source, if it is a named set. A named set is drawn
            from its test split.
        count: problems; by default 64, or all of the source if they are fewer.
        split: as in ``[data]``; absent for ``test`` if the source is a named set that has it.
        columns: as in ``[data]``.
        chat: as in ``[data]``, for this source; absent for ``data.chat``, except that a named set's prompts
            are complete.
        seed: of a named set's draw, of the sampling and of the lengths that L1's prompts ask for.
        samples: answers per problem.
        temperature: of the sampling; 0 for greedy.
        top_p: of the sampling.
        budgets: [thinking, solution] pairs; -1 for unlimited. Absent for the training budget alone.
    """

    TABLE: ClassVar[str] = "eval"

    every: int = limited(0, low=0)
    at_start: bool = True
    source: str | None = None
    count: int = limited(64, low=1)
    split: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    chat: Literal["auto", "on", "off"] | None = None
    seed: int = limited(1, low=0, high=2**31 - 1)
    samples: int = limited(1, low=1)
    temperature: float = limited(0.6, low=0, high=100)
    top_p: float = limited(0.95, above=0, high=1)
    budgets: tuple[tuple[int, int], ...] = ()

    def check(self) -> None:
        try:
            check_columns(dict(self.columns))
        except ValueError as error:
            raise ValueError(f"eval.{error}") from error
        for thinking, solution in self.budgets:
            if thinking < -1 or solution < -1 or solution == 0:
                raise ValueError(
                    "eval.budgets: a pair is [thinking >= 0, solution >= 1], -1 for unlimited, "
                    f"got [{thinking}, {solution}]"
                )


@dataclass(frozen=True)
class LoggingConfig(Section):
    """``[logging]``: metrics always go to ``metrics.jsonl``.

    Attributes:
        console_every: steps between printed lines; 0 for none.
        progress: show a progress bar on a terminal.
        tensorboard: also write TensorBoard events where it is installed.
        samples_every: steps between samples of completions in ``samples.jsonl``; 0 for none.
        samples: completions written then.
        samples_table: print them as a table, too.
        wandb: project in Weights & Biases that gets the metrics, the configuration and the samples. Absent:
            nothing is sent.
        wandb_name: of the run there; absent for a drawn one.
        wandb_tags: of the run there.
        wandb_mode: ``online``; or ``offline``, which writes files that ``wandb sync`` sends later. Absent for
            W&B's own setting.
    """

    TABLE: ClassVar[str] = "logging"

    console_every: int = limited(1, low=0)
    progress: bool = True
    tensorboard: bool = True
    samples_every: int = limited(0, low=0)
    samples: int = limited(4, low=1)
    samples_table: bool = True
    wandb: str | None = None
    wandb_name: str | None = None
    wandb_tags: tuple[str, ...] = ()
    wandb_mode: Literal["online", "offline"] | None = None

    def check(self) -> None:
        if self.wandb == "":
            raise ValueError("logging.wandb: must name a project, got ''; leave it out to send nothing")
