"""The request of one `elastic generate` call, with all checks that need no model."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic.budget import Budget
from elastic.data import load_prompts
from elastic.data.files import read_lines
from elastic.data.rows import SUFFIXES
from elastic.sampling import Sampling

MAX_ROWS = 64

_BUDGET_FLAGS = (
    *("closing", "grace", "whole_characters", "on_eos", "on_reopen", "on_reclose"),
    *("min_thinking", "max_extensions", "extension"),
)


@dataclass(frozen=True)
class GenerateRequest:
    """One call of the command.

    Attributes:
        model: a local Hugging Face model directory or hub id, or `tiny` for the embedded model.
        prompts: at least one.
        budget: of every completion.
        sampling: how tokens are drawn. Without a seed one is drawn, and printed to stderr.
        samples: completions per prompt, at least 1.
        chat: whether prompts are a user's messages for the tokenizer's chat template; None: yes, if the
            tokenizer has one.
        add_special_tokens: whether prompts get what the tokenizer puts in front of a text; None: no, with
            a warning where raw prompts lack it.
        phase: where completions begin; None: as the end of each prompt says.
        thinking_used: thinking tokens that the prompts spent already.
        start_marker: opens thinking; without it and `end_marker`, those of the vocabulary.
        end_marker: closes it.
        ends: what else ends thinking.
        stop: strings that end a completion whose solution holds one.
        stream: whether tokens are shown as they come, one completion after the other.
        json_path: where to write the completions, or None.
        max_rows: rows decoded together when not streaming.
        allow_missing: of `elastic.load_model`, as are `device` and `dtype`.
        max_new_tokens: of `RolloutEngine.generate`.

    Raises:
        ValueError: no prompts, fewer than one sample, or a `json_path` that cannot be written.
    """

    model: str
    prompts: Sequence[str]
    budget: Budget
    sampling: Sampling
    samples: int = 1
    chat: bool | None = None
    add_special_tokens: bool | None = None
    phase: str | None = None
    thinking_used: int | None = None
    start_marker: str | None = None
    end_marker: str | None = None
    ends: Sequence[str] = ()
    stop: Sequence[str] = ()
    stream: bool = False
    json_path: Path | None = None
    max_rows: int = MAX_ROWS
    allow_missing: bool = False
    device: str = "auto"
    dtype: str = "auto"
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("prompts: expected at least one, got none")
        if self.samples < 1:
            raise ValueError(f"samples: expected 1 or more, got {self.samples}")
        if self.json_path is not None:
            _check_writable(self.json_path)


def request_of(options: argparse.Namespace) -> GenerateRequest:
    """The request that flags of the command line make.

    Raises:
        ValueError: a bad value or a malformed file; `run` checks what depends on the model.
        OSError: a file that cannot be read.
    """
    if options.json is not None and options.prompts is not None and _same(options.json, options.prompts):
        raise ValueError(f"json: {options.json} is the file of the prompts, which it would replace")
    rules = given(options, *_BUDGET_FLAGS)
    if options.total is not None and (options.thinking, options.solution) == (None, None):
        budget = Budget.vanilla(options.total, **rules)
    else:
        budget = Budget(options.thinking, options.solution, options.total, **rules)
    return GenerateRequest(
        model=options.model,
        prompts=read_prompts(options.prompts) if options.prompts is not None else options.prompt,
        budget=budget,
        sampling=Sampling(**given(options, "temperature", "top_k", "top_p", "min_p", "seed")),
        ends=tuple(options.end or ()),
        stop=tuple(options.stop or ()),
        stream=options.stream,
        json_path=options.json,
        allow_missing=options.allow_missing,
        **given(
            *(options, "samples", "chat", "add_special_tokens", "phase", "thinking_used", "max_rows"),
            *("start_marker", "end_marker", "device", "dtype", "max_new_tokens"),
        ),
    )


def read_prompts(path: Path) -> list[str]:
    """Prompts of a text file, one per line, or of a data file (.json, ...), whose rows need no answers.

    Raises:
        ValueError: the file holds no prompt, or is malformed.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file of prompts: {path}")
    if path.suffix in SUFFIXES:
        return load_prompts(path)
    prompts = [line for _, line in read_lines(path)]
    if not prompts:
        raise ValueError(f"{path}: holds no prompt")
    return prompts


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags of these names that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _check_writable(path: Path) -> None:
    """Raises before any work if the file could not be written at its end."""
    directory = path.resolve().parent
    if not directory.is_dir():
        raise ValueError(f"json: no such directory: {directory}")
    if path.exists() and not path.is_file():
        raise ValueError(f"json: expected a file, got {path}, which is none")
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ValueError(f"json: cannot write into {directory}: {error.strerror}") from error
