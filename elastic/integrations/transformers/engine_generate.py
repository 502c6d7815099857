"""The own engine behind `model.generate(custom_generate=...)`: its slots and record, generate's arguments.

K prompts, R rows, L tokens of the longest prompt, T of the longest completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation import GenerateDecoderOnlyOutput, GenerationMode

from elastic.budget import Budget, Source
from elastic.integrations.transformers.processor import prompts_of
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.sampling import Sampling

_DRAWS = ("TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper")
_ENDS = ("MaxLengthCriteria", "EosTokenCriteria")
_CACHES = ("past_key_values", "cache")  # the second since transformers 5.24
# What generate prepares for the forward passes of its own loop; the engine prepares its own.
_PREPARED = {*_CACHES, "attention_mask", "position_ids", "use_cache", "logits_to_keep", "cache_position"}
_DEFAULT_TOKENS = 20  # of a generate without max_new_tokens, up to the context
_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


def custom_generate(
    engine: RolloutEngine, budget: Budget | Sequence[Budget] | None = None, **options: Any
) -> EngineGenerate:
    """Decodes the rows of a call of `model.generate` with a `RolloutEngine`:

        custom = custom_generate(RolloutEngine(model, tokenizer), Budget(512, 256))
        sequences = model.generate(**inputs, custom_generate=custom, do_sample=True, temperature=0.6)
        custom.batch.solution(0)

    Temperature, top_k, top_p and min_p are generate's, with its defaults (top_k is 50 there), and so are
    `num_return_sequences` and `max_new_tokens`; its default of 20 tokens is no limit. Seeds come from torch's
    generator: `torch.manual_seed` repeats a call. What generate does not hand on to a callable has no effect:
    a streamer, an assistant model, synced_gpus.

    Args:
        engine: over the model that generates.
        budget: one for all, one per prompt, or one per row.
        options: further arguments of `RolloutEngine.generate`, such as `phase` or `stop`.
    """
    return EngineGenerate(engine, budget, options)


class EngineGenerate:
    """What `custom_generate` makes; see there.

    Attributes:
        batch: the record of the last call; None before the first.
    """

    def __init__(
        self, engine: RolloutEngine, budget: Budget | Sequence[Budget] | None, options: dict[str, Any]
    ):
        self.engine, self.budget, self.options = engine, budget, options
        self.batch: RolloutBatch | None = None

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Sequence[Any],
        stopping_criteria: Sequence[Any],
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """What generate calls in the place of its own loop.

        Args:
            model: the one that generates.
            input_ids: [R, L], each prompt `num_return_sequences` times.
            logits_processor, stopping_criteria, generation_config: as generate made them of its arguments.
            model_kwargs: `attention_mask` [R, L], and arguments of the model's forward pass.

        Returns:
            [R, L + T] int64, completions padded on the right; under `return_dict_in_generate` a
            `GenerateDecoderOnlyOutput` with these sequences.

        Raises:
            TypeError, ValueError: what the engine cannot do, and what it refuses, before any token.
        """
        if model is not self.engine.model:
            raise ValueError("custom_generate: expected the model of its engine, got another one")
        config = generation_config
        _check(config, logits_processor, stopping_criteria, model_kwargs)
        ends = {int(i) for criterion in stopping_criteria for i in getattr(criterion, "eos_token_id", ())}
        if extra := ends - set(self.engine.limits.eos_ids):
            known = self.engine.limits.eos_ids
            raise ValueError(
                f"eos_token_id: expected ids of the engine's eos_ids {known}, got {sorted(extra)}"
            )
        mask = model_kwargs.get("attention_mask")  # dropped by generate where nothing is padded
        samples = config.num_return_sequences or 1
        inputs = (
            {"input_ids": input_ids} if mask is None else {"input_ids": input_ids, "attention_mask": mask}
        )
        self.batch = batch = self.engine.generate(
            prompts_of({name: tensor[::samples] for name, tensor in inputs.items()}),
            self.budget,
            samples,
            _sampling(config),
            _new_tokens(model, config, input_ids.shape[1]),
            **self.options,
        )
        fill = self.engine.limits.pad_id if config.pad_token_id is None else config.pad_token_id
        tokens = batch.tokens.masked_fill(batch.source == Source.PAD, int(fill)).to(input_ids.device)
        sequences: Any = torch.cat([input_ids, tokens], dim=1)
        return GenerateDecoderOnlyOutput(sequences=sequences) if config.return_dict_in_generate else sequences


def _check(
    config: Any,
    processors: Sequence[Any],
    criteria: Sequence[Any],
    model_kwargs: dict[str, Any],
) -> None:
    """Refuses what would silently have no effect.

    Raises:
        ValueError: naming the arguments of generate.
    """
    mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise ValueError(f"custom_generate: expected greedy decoding or sampling, got {mode.value}")
    for name, given, known in (
        ("logits_processor", processors, _DRAWS),
        ("stopping_criteria", criteria, _ENDS),
    ):
        if extra := [type(one).__name__ for one in given if type(one).__name__ not in known]:
            raise ValueError(
                f"{name}: the engine draws and ends rows itself and knows {', '.join(known)}, got "
                f"{', '.join(extra)}, from an argument or the model's generation config"
            )
    if asked := [name for name in _OUTPUTS if getattr(config, name, None)]:
        raise ValueError(f"{asked[0]}: expected False: the engine keeps logprobs (batch.logprobs), no scores")
    if extra := sorted(model_kwargs.keys() - _PREPARED):
        raise ValueError(f"{extra[0]}: expected prompts of tokens alone, got the argument {extra[0]}")
    caches = [cache for name in _CACHES if (cache := model_kwargs.get(name)) is not None]
    if any(cache.get_seq_length() > 0 for cache in caches):
        raise ValueError("past_key_values: expected none: the engine computes whole prompts")


def _sampling(config: Any) -> Sampling:
    if not config.do_sample:
        return Sampling(temperature=0.0, seed=0)
    values = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    seed = int(torch.randint(2**63 - 1, ()))
    return Sampling(**{name: value for name, value in values.items() if value is not None}, seed=seed)


def _new_tokens(model: Any, config: Any, prompt_tokens: int) -> int | None:
    """The limit that the caller gave, or None.

    Raises:
        ValueError: `max_length`, which counts prompts and their padding too.
    """
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    context = getattr(model.config, "max_position_embeddings", None)
    if config.max_length not in (prompt_tokens + _DEFAULT_TOKENS, context):
        raise ValueError(f"max_length: expected max_new_tokens in its place, got {config.max_length}")
    return None
