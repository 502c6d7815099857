"""`elastic generate`: completions under budgets, on the screen and as JSON."""

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from elastic.budget import Budget
from elastic.data import load_prompts
from elastic.files import read_lines, write_atomic
from elastic.report.display import Decode, Display
from elastic.report.traces import facts
from elastic.rollout import RolloutBatch, RolloutEngine, chat_prompts
from elastic.sampling import Sampling, row_seeds
from elastic.threads import threads_for

EMBEDDED = "tiny"


@dataclass(frozen=True)
class Request:
    """One call of the command.

    Attributes:
        model: a local Hugging Face model directory, or `tiny` for the embedded model.
        prompts: at least one.
        budget: of every completion.
        sampling: how tokens are drawn. Without a seed one is drawn, and said on stderr.
        samples: completions a prompt, at least 1.
        chat: whether prompts are a user's messages for the tokenizer's chat template; None for yes where
            the tokenizer has one.
        add_special_tokens: whether prompts get what the tokenizer puts in front of a text; None for no, with
            a warning where raw prompts lack it.
        stream: whether tokens are shown as they come, one completion after the other.
        json_path: where to write the completions, or None.
        max_rows: rows decoded together when not streaming.
    """

    model: str
    prompts: Sequence[str]
    budget: Budget
    sampling: Sampling
    samples: int = 1
    chat: bool | None = None
    add_special_tokens: bool | None = None
    stream: bool = False
    json_path: Path | None = None
    max_rows: int = 64
    device: str = "auto"
    dtype: str = "auto"
    max_new_tokens: int | None = None


def read_prompts(path: Path) -> list[str]:
    """Prompts of a text file, one a line, or of the objects of a .json or .jsonl file; those need no answers.

    Raises:
        ValueError: the file holds no prompt, or is malformed.
        OSError: it cannot be read.
    """
    if path.suffix in (".json", ".jsonl"):
        return load_prompts(path)
    prompts = [line for _, line in read_lines(path)]
    if not prompts:
        raise ValueError(f"{path}: holds no prompt")
    return prompts


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """Model and tokenizer of a directory or hub id, or the embedded ones; see `elastic.load_model`."""
    if name == EMBEDDED:
        from elastic import tiny

        return tiny.load()
    from elastic.models import load_model

    return load_model(name, device=device, dtype=dtype)


def run(request: Request, out: TextIO) -> None:
    """Generates and shows every completion; prompt by prompt, samples of a prompt together.

    Streaming decodes one completion after the other. Seeds belong to rows, so it shows what decoding all of
    them together would, but for the rounding of larger matrix products.

    Raises:
        ValueError: no prompts, a bad number, or whatever the engine refuses.
        OSError: the model or the directory of `json_path` is missing.
    """
    _check(request)
    request = _with_seed(request)
    model, tokenizer = open_model(request.model, device=request.device, dtype=request.dtype)
    prompts, special = _with_template(tokenizer, request)
    _warn_of_unknown_words(tokenizer, prompts)
    max_rows = 1 if request.stream else request.max_rows
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows, add_special_tokens=special)
    display = Display(out, _decode_with(tokenizer), colour=out.isatty())
    rows = 1 if request.stream else min(request.max_rows, len(prompts) * request.samples)
    with threads_for(model, rows):
        batch = (_stream if request.stream else _all_at_once)(engine, prompts, request, display)
    if request.json_path is not None:
        batch = replace(batch, run_seed=request.sampling.seed)  # streamed rows are calls of their own
        records = (json.dumps(record, ensure_ascii=False) for record in batch.to_records())
        write_atomic(request.json_path, "[" + ",\n".join(records) + "]\n")


def _check(request: Request) -> None:
    """What would otherwise be found only when the work is done."""
    if not request.prompts:
        raise ValueError("prompts: expected at least one, got none")
    if request.samples < 1:
        raise ValueError(f"samples: expected 1 or more, got {request.samples}")
    if request.json_path is not None and not request.json_path.absolute().parent.is_dir():
        raise FileNotFoundError(f"json: no such directory: {request.json_path.absolute().parent}")


def _with_seed(request: Request) -> Request:
    if request.sampling.seed is not None:
        return request
    sampling = request.sampling.seeded()
    print(f"elastic: seed {sampling.seed}; --seed {sampling.seed} gives the same again", file=sys.stderr)
    return replace(request, sampling=sampling)


def _with_template(tokenizer: Any, request: Request) -> tuple[list[str], bool | None]:
    """The prompts as texts, and whether the tokenizer's special tokens are to be added to them."""
    chat = request.chat if request.chat is not None else bool(tokenizer.chat_template)
    if not chat:
        return list(request.prompts), request.add_special_tokens
    # A template writes out what it wants, also where that is no BOS.
    return chat_prompts(tokenizer, request.prompts), bool(request.add_special_tokens)


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


def _all_at_once(
    engine: RolloutEngine, prompts: Sequence[str], request: Request, display: Display
) -> RolloutBatch:
    batch = engine.generate(
        prompts,
        request.budget,
        samples_per_prompt=request.samples,
        sampling=request.sampling,
        max_new_tokens=request.max_new_tokens,
    )
    for row in range(len(batch)):
        display.begin(_heading(request, row))
        for fields in zip(
            *(part[row].tolist() for part in (batch.tokens, batch.source, batch.phase)), strict=True
        ):
            display.token(*fields)
        display.end(facts(batch, row))
    return batch


def _stream(
    engine: RolloutEngine, prompts: Sequence[str], request: Request, display: Display
) -> RolloutBatch:
    batches = []
    assert request.sampling.seed is not None  # `run` drew one
    for row, seed in enumerate(row_seeds(request.sampling.seed, len(prompts) * request.samples)):
        display.begin(_heading(request, row))
        batch = engine.generate(
            [prompts[row // request.samples]],
            request.budget,
            sampling=request.sampling,
            max_new_tokens=request.max_new_tokens,
            seeds=[seed],
            on_token=lambda _, token, phase, source: display.token(token, source, phase),
        )
        display.end(facts(batch, 0))
        batches.append(batch)
    return RolloutBatch.cat(batches)


def _heading(request: Request, row: int) -> str:
    prompt, sample = divmod(row, request.samples)
    numbers = f"prompt {prompt + 1} of {len(request.prompts)}"
    if request.samples > 1:
        numbers += f", sample {sample + 1} of {request.samples}"
    return f"{numbers}: {textwrap.shorten(request.prompts[prompt], 80)}"
