"""`elastic generate`: completions under budgets, on the screen and as JSON."""

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TextIO

from elastic.commands.generate_request import GenerateRequest, read_prompts
from elastic.commands.interrupt import ThoughtInterrupt
from elastic.data.files import write_atomic
from elastic.evaluate.report.display import Display
from elastic.evaluate.report.traces import facts
from elastic.models import load_model
from elastic.models.threads import threads_for
from elastic.rollout import Finished, RolloutBatch, RolloutEngine, chat_prompts
from elastic.rollout.plan.default_markers import choose_markers
from elastic.rollout.record.spans import Decode

MARKER_FLAGS = ("--start-marker", "--end-marker", "--end")

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
        tokenizer, request.start_marker, request.end_marker, request.ends, names=MARKER_FLAGS
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
            batch = engine.generate(prompts, **_arguments(request))
            _write_json(request, batch)  # before a reader of the display may have had enough
            _show(batch, request, display)


def _write_json(request: GenerateRequest, batch: RolloutBatch) -> None:
    if request.json_path is None:
        return
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


def _arguments(request: GenerateRequest) -> dict[str, Any]:
    names = ("budget", "sampling", "max_new_tokens", "phase", "thinking_used", "stop")
    return {name: getattr(request, name) for name in names} | {"samples_per_prompt": request.samples}


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
    shown = -1
    with ThoughtInterrupt() as interrupt, engine.stream(prompts, **_arguments(request)) as stream:
        for event in stream:
            if event.row != shown:  # rows come one after the other
                shown = event.row
                display.begin(_heading(request, shown))
                interrupt.begin()
            if isinstance(event, Finished):
                display.end(facts(event.record, 0))
                continue
            display.token(event.token, event.source, event.phase)
            if interrupt.token(event.phase):
                stream.end_thinking(event.row)
    return stream.batch


def _heading(request: GenerateRequest, row: int) -> str:
    prompt, sample = divmod(row, request.samples)
    numbers = f"prompt {prompt + 1} of {len(request.prompts)}"
    if request.samples > 1:
        numbers += f", sample {sample + 1} of {request.samples}"
    return f"{numbers}: {textwrap.shorten(request.prompts[prompt], 80)}"
