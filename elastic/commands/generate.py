"""`elastic generate`: completions under budgets, on the screen and as JSON."""

import json
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TextIO

import torch

from elastic.commands.generate_request import GenerateRequest, read_prompts
from elastic.commands.interrupt import ThoughtInterrupt
from elastic.data.files import write_atomic
from elastic.evaluate.report.display import Decode, Display
from elastic.evaluate.report.traces import facts
from elastic.models import load_model
from elastic.models.threads import threads_for
from elastic.rollout import RolloutBatch, RolloutEngine, chat_prompts
from elastic.rollout.default_markers import choose_markers
from elastic.rollout.plan import make_plan
from elastic.rollout.starts import never_thought

_MARKER_FLAGS = ("--start-marker", "--end-marker", "--end")

__all__ = ["GenerateRequest", "read_prompts", "run"]


def run(request: GenerateRequest, out: TextIO) -> None:
    """Generates and shows every completion; prompt by prompt, samples of a prompt together.

    Streaming decodes one completion after the other. Each row has its own seed, so streaming shows the same
    completions as decoding all together, up to the rounding of larger matrix products.

    Raises:
        ValueError: the model cannot be used, or whatever the engine refuses.
        OSError: the file of `json_path` cannot be written.
    """
    model, tokenizer = load_model(
        request.model, device=request.device, dtype=request.dtype, allow_missing=request.allow_missing
    )
    prompts, special = _with_template(tokenizer, request)
    _warn_of_unknown_words(tokenizer, prompts)
    markers = choose_markers(
        tokenizer, request.start_marker, request.end_marker, request.ends, names=_MARKER_FLAGS
    )
    engine = RolloutEngine(
        model,
        tokenizer,
        markers=markers,
        max_rows=1 if request.stream else request.max_rows,
        add_special_tokens=special,
    )
    request = _with_seed(request)
    display = Display(out, _decode_with(tokenizer), colour=out.isatty())
    rows = 1 if request.stream else min(request.max_rows, len(prompts) * request.samples)
    with threads_for(model, rows):
        if request.stream:
            _write_json(request, _stream(engine, prompts, request, display))
        else:
            batch = _all_at_once(engine, prompts, request)
            _write_json(request, batch)  # before a reader of the display may have had enough
            _show(batch, request, display)


def _write_json(request: GenerateRequest, batch: RolloutBatch) -> None:
    if request.json_path is None:
        return
    batch = replace(batch, run_seed=request.sampling.seed)  # streamed rows are calls of their own
    records = (json.dumps(record, ensure_ascii=False) for record in batch.to_records())
    # A link stays one.
    write_atomic(request.json_path.resolve(), "[" + ",\n".join(records) + "]\n")


def _with_seed(request: GenerateRequest) -> GenerateRequest:
    if request.sampling.seed is not None:
        return request
    sampling = request.sampling.seeded()
    if sampling.temperature > 0:
        print(f"elastic: seed {sampling.seed}; --seed {sampling.seed} gives the same again", file=sys.stderr)
    return replace(request, sampling=sampling)


def _with_template(tokenizer: Any, request: GenerateRequest) -> tuple[list[str], bool | None]:
    """The prompts as texts, and whether the tokenizer's special tokens are to be added to them."""
    chat = request.chat if request.chat is not None else bool(tokenizer.chat_template)
    if not chat:
        return list(request.prompts), request.add_special_tokens
    try:
        prompts = chat_prompts(tokenizer, request.prompts)
    except ValueError as error:
        raise ValueError(f"{error}; --raw takes prompts as they stand") from error
    # A chat template writes BOS itself if the model wants one.
    return prompts, bool(request.add_special_tokens)


def _warn_of_unknown_words(tokenizer: Any, prompts: Sequence[str]) -> None:
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    for index, prompt in enumerate(prompts, start=1):
        if unknown in tokenizer.encode(prompt, add_special_tokens=False):
            print(f"elastic: prompt {index} holds words that the model does not know", file=sys.stderr)


def _decode_with(tokenizer: Any) -> Decode:
    return lambda ids: tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def _all_at_once(engine: RolloutEngine, prompts: Sequence[str], request: GenerateRequest) -> RolloutBatch:
    return engine.generate(
        prompts,
        request.budget,
        samples_per_prompt=request.samples,
        sampling=request.sampling,
        **_limits(request),
    )


def _limits(request: GenerateRequest) -> dict[str, Any]:
    names = ("max_new_tokens", "phase", "thinking_used")
    return {name: getattr(request, name) for name in names}


def _show(batch: RolloutBatch, request: GenerateRequest, display: Display) -> None:
    for row in range(len(batch)):
        display.begin(_heading(request, row))
        for fields in zip(
            *(part[row].tolist() for part in (batch.tokens, batch.source, batch.phase)), strict=True
        ):
            display.token(*fields)
        display.end(facts(batch, row))


def _stream(
    engine: RolloutEngine, prompts: Sequence[str], request: GenerateRequest, display: Display
) -> RolloutBatch:
    # A mistake in the last prompt is found before the first completion is shown.
    plan = make_plan(
        *(prompts, request.budget, request.samples, request.sampling),
        seeds=None,
        tokenizer=engine.tokenizer,
        markers=engine.markers,
        limits=engine.limits,
        add_special_tokens=engine.add_special_tokens,
        **_limits(request),
    )
    batches = []

    def show(_: int, token: int, phase: int, source: int) -> Literal["end_thinking"] | None:
        display.token(token, source, phase)
        return interrupt.token(phase)

    with ThoughtInterrupt() as interrupt, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* no completion did")  # what is said of one holds of all or not
        for row, k in enumerate(plan.prompt_index):
            display.begin(_heading(request, row))
            interrupt.begin()
            batch = engine.generate(
                prompts[k : k + 1],
                request.budget,
                sampling=request.sampling,
                seeds=plan.seeds[row : row + 1],
                on_token=show,
                **_limits(request),
            )
            display.end(facts(batch, 0))
            batches.append(batch)
    index = torch.tensor(plan.prompt_index, device=engine.device)
    batch = replace(RolloutBatch.cat(batches), prompts=plan.prompts, prompt_index=index)
    if message := never_thought(batch, plan.starts, [request.budget] * len(batch)):
        warnings.warn(message, stacklevel=2)
    return batch


def _heading(request: GenerateRequest, row: int) -> str:
    prompt, sample = divmod(row, request.samples)
    numbers = f"prompt {prompt + 1} of {len(request.prompts)}"
    if request.samples > 1:
        numbers += f", sample {sample + 1} of {request.samples}"
    return f"{numbers}: {textwrap.shorten(request.prompts[prompt], 80)}"
