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
        steps: rollout batches. All of them run.
        seed: of the data order, the budgets drawn and every rollout row.
        epochs_per_batch: passes over a rollout batch.
        minibatches: optimizer steps per pass.
        accumulation_steps: micro-batches per optimizer step, of near equal size in tokens.
        micro_batch_tokens: most packed tokens of a micro-batch (a single row may exceed it); raises the
            number of micro-batches above ``accumulation_steps`` where needed. 0 for no limit.
        mixed_precision: ``bf16`` runs updates under autocast over float32 weights, and rollouts on a 16-bit
            copy; ``loss.old_logprobs = "recompute"`` then keeps the copy's rounding out of the ratio.
        resume: ``auto`` goes on from the newest checkpoint in ``output_dir``; ``never`` refuses to start
            where there is a checkpoint or a metric. Neither overwrites a finished run or another run.
        save_every: steps between checkpoints; 0 for only the final model. A failure leaves one in any case.
        keep_checkpoints: newest checkpoints kept.
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
    resume: Literal["auto", "never"] = "auto"
    save_every: int = limited(50, low=0)
    keep_checkpoints: int = limited(2, low=1)


@dataclass(frozen=True)
class EvalConfig(Section):
    """``[eval]``: problems answered under several budgets while training goes on.

    Attributes:
        every: steps between evaluations; also before the first step and after the last. 0 for none.
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
    """

    TABLE: ClassVar[str] = "logging"

    console_every: int = limited(1, low=0)
    progress: bool = True
    tensorboard: bool = True
    samples_every: int = limited(0, low=0)
    samples: int = limited(4, low=1)
