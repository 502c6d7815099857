"""The tables of a training configuration that say what is learned: model, data, rollouts."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from elastic.data.columns import check_columns, check_kept
from elastic.data.filters import AnswerKind, Filters
from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class ModelConfig(Section):
    """``[model]``: which model is trained, and its markers.

    Attributes:
        path: a Hugging Face directory or hub id, or ``tiny`` for the embedded model.
        dtype: of the weights. ``bfloat16`` weights are trained through float32 copies in the optimizer, in
            which updates smaller than their rounding add up; ``float16`` is refused.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        attention: of prompts in rollouts, see `elastic.load_model`.
        allow_missing: accept a checkpoint that lacks some weights (they are then random) or has unknown ones.
        start_marker: text that opens thinking; where neither marker is given, the well-known pair that the
            vocabulary has as tokens, else ``<think>`` and ``</think>``.
        end_marker: text that closes it.
        ends: other texts with which the model ends thinking, as ``<tool_call>``.
        gradient_checkpointing: recompute activations in the backward pass.
        offload_activations: keep what gradient checkpointing keeps, the layers' inputs, in the host's memory
            between forward and backward. For GPUs; needs ``gradient_checkpointing``.
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
    offload_activations: bool = False

    def check(self) -> None:
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError(
                "model.offload_activations: needs model.gradient_checkpointing = true: what is moved are the "
                "inputs of layers, all that these keep then"
            )


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
        keep_columns: further columns that reward functions see, as ``ground_truth`` or ``extra_info.index``
            (called ``index``). Those that functions or budgets ask for by name are kept anyway.
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
    keep_columns: tuple[str, ...] = ()
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
            check_kept(self.keep_columns, "keep_columns")
            _ = self.filters
        except ValueError as error:
            raise ValueError(f"data.{error}") from error

    @property
    def filters(self) -> Filters:
        """Which problems are kept."""
        return Filters(**{item.name: getattr(self, item.name) for item in fields(Filters)})


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
        most_kept: with one of these filters: up to how many ids the record keeps of what a filter left of a
            token's vocabulary. The losses then take logprobs and ratios among these ids, as the token was
            sampled (docs/kept-set.md); a token with more is taken under the whole vocabulary. 0: all are.
        dynamic_sampling: replace groups whose rewards are all equal, so that no gradient comes from them, by
            groups of the next problems (DAPO, arXiv 2503.14476). Metrics then cover the groups that are used,
            and ``sampled_groups`` and ``kept_groups`` count those drawn and those with different rewards.
        max_batches: most batches of groups that a step draws, the first included. What is still equal then is
            used as it is.
        max_rows: rows decoded at once.
        max_new_tokens: ends rows whose budget is unlimited; absent for the model's context.
        engine: what decodes: ``own``, or ``vllm``, see `elastic.integrations.vllm.VLLMEngine`.
        ranks: which processes decode: ``all``, each its share, or the ``first`` for all, so that the others
            hold no copy of the model for rollouts; see docs/processes.md.
        vllm_memory: share of the device's memory that vLLM takes for its weights, KV cache and work space.
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
    most_kept: int = limited(1024, low=0, high=2**22)
    dynamic_sampling: bool = False
    max_batches: int = limited(3, low=2)
    max_rows: int = limited(64, low=1)
    max_new_tokens: int | None = limited(None, low=1)
    engine: Literal["own", "vllm"] = "own"
    ranks: Literal["all", "first"] = "all"
    vllm_memory: float = limited(0.3, above=0, high=1)
    attention: Literal["auto", "flash", "flex", "sdpa"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"

    def check(self) -> None:
        if self.samples_per_prompt == 1:
            raise ValueError(
                "rollout.samples_per_prompt: must be at least 2, got 1: advantages compare a prompt's "
                "samples with each other; that of a single one is 0, and nothing would be learned"
            )
