"""The flags of `elastic generate`, and which of them have no effect in combination with others."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from elastic.budget import CLOSINGS, START_PHASES
from elastic.commands.generate_request import MAX_ROWS


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every flag, in groups. A flag that was not given is None, which tells it from its default."""
    parser.add_argument(
        "model", type=text, help="a Hugging Face model directory or hub id, or 'tiny' for the embedded model"
    )
    _add_prompts(parser)
    _add_budgets(parser)
    add_markers(parser)
    add_sampling(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--stream",
        action="store_true",
        help="show tokens as they come, one completion at a time. Ctrl-C while it thinks ends the thought, "
        "and it answers; a second one, or one at another time, ends the program",
    )
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the completions, with all annotations"
    )
    add_running(parser)


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    prompts = parser.add_argument_group("prompts")
    source = prompts.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", type=text, action="append", metavar="TEXT", help="may be repeated")
    source.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one prompt a line, or .json/.jsonl problems"
    )
    add_chat(prompts, "where the tokenizer has one")
    prompts.add_argument(
        "--add-special-tokens",
        action=argparse.BooleanOptionalAction,
        help="whether prompts get the BOS, or what else the tokenizer puts in front of a text (default: not)",
    )
    prompts.add_argument(
        "--phase",
        choices=tuple(START_PHASES),
        help="where completions begin; by default the end of each prompt says it",
    )
    prompts.add_argument(
        "--thinking-used", type=int, metavar="TOKENS", help="thinking tokens that the prompts hold already"
    )


def _add_budgets(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_argument_group("budgets, in sampled tokens ('none', the default, for no limit)")
    budget.add_argument("--thinking", type=tokens, metavar="TOKENS", help="most thinking tokens; 0 is legal")
    budget.add_argument("--solution", type=tokens, metavar="TOKENS", help="most solution tokens")
    budget.add_argument("--total", type=tokens, metavar="TOKENS", help="cap over both; alone it cuts hard")
    budget.add_argument("--max-new-tokens", type=int, metavar="TOKENS", help="end of unlimited completions")
    budget.add_argument(
        "--stop",
        type=text,
        action="append",
        metavar="TEXT",
        help="ends a completion whose solution holds it; may be repeated",
    )
    end = parser.add_argument_group("how thinking ends")
    add_ends(end)
    end.add_argument(
        "--whole-characters",
        action="store_true",
        default=None,
        help="a cut waits, at most three tokens, for the end of a character",
    )
    end.add_argument(
        "--on-eos", choices=("close", "stop"), help="EOS while thinking closes it, or ends the completion"
    )
    end.add_argument(
        "--on-reopen", choices=("count", "forbid"), help="a start marker in the solution is text, or masked"
    )
    end.add_argument(
        "--on-reclose", choices=("count", "forbid"), help="an end marker behind a cut thought, likewise"
    )


def add_ends(end: argparse._ArgumentGroup, early: str = "an end before that is replaced") -> None:
    """How a cut ends thinking, and what replaces an early end; `early` is the help of that flag."""
    named = ", ".join(CLOSINGS)
    end.add_argument(
        "--closing",
        type=text,
        metavar="NAME|TEXT",
        help=f"what ends a cut thought: {named}, or a text with {{end}} for the end marker",
    )
    end.add_argument(
        "--grace", type=int, metavar="TOKENS", help="past the thinking budget, for a line or sentence to end"
    )
    end.add_argument("--min-thinking", type=int, metavar="TOKENS", help=early)
    end.add_argument("--max-extensions", type=int, metavar="N", help="how often at most (default 0)")
    end.add_argument("--extension", type=text, metavar="TEXT", help="by what (default Wait)")


def add_markers(parser: argparse.ArgumentParser) -> None:
    """What opens and closes thinking."""
    markers = parser.add_argument_group("thinking markers")
    markers.add_argument(
        "--start-marker",
        type=text,
        metavar="TEXT",
        help="opens thinking (default <think>, or a well-known pair that is tokens of the vocabulary)",
    )
    markers.add_argument("--end-marker", type=text, metavar="TEXT", help="closes it (default </think>)")
    markers.add_argument(
        "--end",
        type=text,
        action="append",
        metavar="TEXT",
        help="something else of the model's that ends thinking, such as <tool_call>; may be repeated",
    )


def add_chat(group: argparse._ArgumentGroup, default: str) -> None:
    """Whether prompts are questions for the chat template; `default` says when they are."""
    chat = group.add_mutually_exclusive_group()
    chat.add_argument(
        "--chat",
        action="store_true",
        default=None,
        help=f"prompts are messages for the chat template (default {default})",
    )
    chat.add_argument("--raw", dest="chat", action="store_false", help="prompts are tokenised as they stand")


def add_sampling(
    parser: argparse.ArgumentParser, seed: str = "of the draws; without it one is drawn and printed"
) -> None:
    """How tokens are drawn; `seed` is the help of its flag."""
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--samples", type=int, metavar="N", help="completions per prompt (default 1)")
    sampling.add_argument("--temperature", type=float, metavar="X", help="default 0.6; 0 is argmax")
    sampling.add_argument("--top-k", type=int, metavar="N", help="the N likeliest tokens; default all")
    sampling.add_argument("--top-p", type=float, metavar="X", help="the likeliest tokens with this mass")
    sampling.add_argument("--min-p", type=float, metavar="X", help="tokens with this share of the likeliest")
    sampling.add_argument("--seed", type=int, metavar="N", help=seed)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Where and how the model runs."""
    running = parser.add_argument_group("running the model")
    running.add_argument(
        "--max-rows", type=int, metavar="N", help=f"completions decoded together (default {MAX_ROWS})"
    )
    running.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1; by default CUDA if there is one"
    )
    running.add_argument(
        "--dtype", default="auto", help="float32, bfloat16, float16; by default float32 on the CPU"
    )
    running.add_argument(
        "--allow-missing", action="store_true", help="take weights that are incomplete, or hold others"
    )


def tokens(word: str) -> int | None:
    """A budget on the command line; its range is checked where budgets are built."""
    if word == "none":
        return None
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of tokens or 'none', got '{word}'") from None


def text(word: str) -> str:
    """A text of the command line; refuses one that is not valid UTF-8, which Python itself lets through."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected UTF-8 text") from None
    return word


class _Rule(NamedTuple):
    """`flags` have no effect where `idle` is true of the options."""

    flags: tuple[str, ...]
    idle: Callable[[Any], bool]
    reason: str


def _never_forced(o: Any) -> bool:
    hard = o.total is not None and o.solution is None
    return o.thinking is None and (o.on_eos or ("stop" if hard else "close")) == "stop" and not o.stream


def _bounded(o: Any) -> bool:
    return o.total is not None or None not in (o.thinking, o.solution)


_GREEDY = _Rule(("top_k", "top_p", "min_p"), lambda o: o.temperature == 0, "--temperature 0 is argmax")
_RULES = (
    _Rule(("max_rows",), lambda o: o.stream, "--stream shows one completion at a time"),
    _GREEDY,
    _Rule(("max_new_tokens",), _bounded, "the budgets end every completion"),
    _Rule(
        (
            *("thinking", "closing", "grace", "on_eos", "on_reclose", "end"),
            *("min_thinking", "max_extensions", "extension"),
        ),
        lambda o: o.phase == "solution",
        "with --phase solution nothing is thought",
    ),
    _Rule(("closing", "on_reclose"), _never_forced, "nothing cuts a thought and lets it answer"),
    _Rule(("grace",), lambda o: o.thinking == 0, "--thinking 0 closes at once"),
    _Rule(("extension",), lambda o: not o.max_extensions, "there is no --max-extensions"),
    _Rule(
        ("whole_characters",),
        lambda o: (o.thinking, o.solution, o.total) == (None, None, None) and not o.stream,
        "no budget cuts anything",
    ),
)


def check_flags(options: argparse.Namespace) -> None:
    """Refuses flags that would be ignored.

    Raises:
        ValueError: names the flag and why.
    """
    for rule in _RULES:
        _check(rule, options)


def check_filters(options: argparse.Namespace) -> None:
    """As `check_flags`, of the flags that `add_sampling` added."""
    _check(_GREEDY, options)


def _check(rule: _Rule, options: argparse.Namespace) -> None:
    for name in rule.flags:
        if getattr(options, name) is not None and rule.idle(options):
            raise ValueError(f"{name}: has no effect: {rule.reason}")
