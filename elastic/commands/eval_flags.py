"""The flags of `elastic eval`, and the request that they make; all checks that need no model."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from elastic.commands.generate_flags import (
    add_chat,
    add_ends,
    add_markers,
    add_running,
    add_sampling,
    check_filters,
    text,
)
from elastic.commands.generate_request import MAX_ROWS, given
from elastic.evaluate.methods import (
    METHODS,
    BudgetPair,
    PolicyOptions,
    budget_pairs,
    check_options,
    get_method,
)
from elastic.rewards.code import Rules
from elastic.sampling import Sampling


@dataclass(frozen=True)
class EvalRequest:
    """One call of the command.

    Attributes:
        model: a local Hugging Face model directory or hub id, or `tiny` for the embedded model.
        data: named sets and files.
        methods: names in `METHODS`.
        budgets: (t, s) pairs.
        out: folder of the results.
        options: how thinking ends.
        sampling: how tokens are drawn, with a seed.
        samples: answers per problem.
        ks: the k of pass@k.
        engine: a name in `elastic.evaluate.engines.ENGINES`.
        count: problems of each set, None for all.
        split: of sets that have several.
        data_seed: of generated sets.
        reward: a name of `elastic.evaluate.run.open_set.REWARDS`, or None for the set's own.
        rules: how programs are run where tests grade them.
        chat: whether the chat template is applied; None: to questions, if the tokenizer has one.
        system: a system message.
        suffix: a line behind each question.
        trained_on: sets that the model was trained on.
        texts: whether samples hold their texts.
        max_rows: rows decoded together.
        chunk_rows: rows between two writes.
        max_new_tokens: end of completions without a bounded budget.
    """

    model: str
    data: tuple[str, ...]
    methods: tuple[str, ...]
    budgets: tuple[BudgetPair, ...]
    out: Path
    options: PolicyOptions
    sampling: Sampling
    samples: int = 1
    ks: tuple[int, ...] = (1,)
    engine: str = "own"
    count: int | None = None
    split: str | None = None
    data_seed: int = 0
    reward: str | None = None
    rules: Rules = Rules()  # noqa: RUF009 - frozen
    chat: bool | None = None
    system: str | None = None
    suffix: str = ""
    trained_on: tuple[str, ...] = ()
    texts: bool = True
    max_rows: int = MAX_ROWS
    chunk_rows: int | None = None
    max_new_tokens: int | None = None
    start_marker: str | None = None
    end_marker: str | None = None
    end: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    allow_missing: bool = False


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every flag, in groups. A flag that was not given is None, which tells it from its default."""
    parser.add_argument(
        "model", type=text, help="a Hugging Face model directory or hub id, or 'tiny' for the embedded model"
    )
    _add_data(parser)
    _add_methods(parser)
    add_sampling(parser, seed="of the draws (default 0)")
    sampling = parser.add_argument_group("how long answers may be without a budget")
    sampling.add_argument("--max-new-tokens", type=int, metavar="TOKENS", help="default: the model's context")
    add_markers(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="samples, problems, settings and rows; goes on with an evaluation in it",
    )
    output.add_argument("--ks", type=_numbers, metavar="K,...", help="k of pass@k (default 1)")
    output.add_argument(
        "--no-texts", dest="texts", action="store_const", const=False, help="samples without their texts"
    )
    add_running(parser)
    running = parser.add_argument_group("what decodes")
    running.add_argument(
        "--engine", metavar="NAME", help="own (the default), hf: generate of transformers, or vllm"
    )
    running.add_argument(
        "--chunk-rows",
        type=int,
        metavar="N",
        help="completions between two writes, the most that a kill loses (default 4 x --max-rows)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("problems")
    data.add_argument(
        "--data", type=_words, required=True, metavar="NAME|FILE,...", help="sets by name, and files"
    )
    data.add_argument("--count", type=int, metavar="N", help="problems of each set (default all)")
    data.add_argument("--split", type=text, metavar="NAME", help="of sets that have several (default test)")
    data.add_argument("--data-seed", type=int, metavar="N", help="of generated sets (default 0)")
    data.add_argument("--reward", metavar="NAME", help="math, tiny or code; by default that of each set")
    data.add_argument(
        "--timeout-s", type=float, metavar="S", help="of code: processor time for each test (default 6)"
    )
    data.add_argument("--memory-mb", type=int, metavar="MIB", help="of code: for a program (default 1024)")
    data.add_argument(
        "--no-sandbox",
        dest="sandbox",
        action="store_const",
        const=False,
        help="of code: run programs unprotected, with your rights",
    )
    data.add_argument(
        "--trained-on", type=_words, metavar="NAME|FILE,...", help="warns where the problems were trained on"
    )
    add_chat(data, "where there is one; not of generated sets")
    data.add_argument("--system", type=text, metavar="TEXT", help="a system message")
    data.add_argument("--suffix", type=text, metavar="TEXT", help="a line behind each question")


def _add_methods(parser: argparse.ArgumentParser) -> None:
    methods = parser.add_argument_group("methods and budgets")
    methods.add_argument("--methods", type=_words, required=True, metavar="NAME,...", help=", ".join(METHODS))
    methods.add_argument(
        "--budgets",
        type=text,
        required=True,
        metavar="T:S,...",
        help="thinking:solution in sampled tokens, '-' for no limit of one, 'none' for no budget",
    )
    end = parser.add_argument_group("how thinking ends, in methods that read it")
    add_ends(end, "s1: an end before that is replaced (default T)")
    end.add_argument(
        "--notice",
        dest="notices",
        type=_notice,
        action="append",
        metavar="TOKENS:TEXT",
        help="a text forced into the thought after so many tokens; may be repeated",
    )


def eval_request(options: argparse.Namespace) -> EvalRequest:
    """The request that flags of the command line make.

    Raises:
        ValueError: a bad value or one without effect; `run` checks what depends on the model.
    """
    check_filters(options)
    policy = given(options, "closing", "grace", "min_thinking", "max_extensions", "extension")
    if options.notices is not None:
        policy["notices"] = tuple(options.notices)
    policies = PolicyOptions(**policy)
    check_options([get_method(name) for name in options.methods], policies)
    sampling = given(options, "temperature", "top_k", "top_p", "min_p", "seed")
    made: dict[str, Any] = {
        "budgets": tuple(budget_pairs(options.budgets)),
        "options": policies,
        "sampling": Sampling(**{"seed": 0} | sampling),
        "rules": Rules(**given(options, "timeout_s", "memory_mb", "sandbox")),
        "end": tuple(options.end or ()),
    }
    as_given = (field.name for field in fields(EvalRequest) if field.name not in made)
    return EvalRequest(**made, **given(options, *as_given))


def _words(word: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text(word).split(","))
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different names, commas between them, got '{word}'")
    return found


def _numbers(word: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in word.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, got '{word}'") from None


def _notice(word: str) -> tuple[int, str]:
    tokens, colon, notice = text(word).partition(":")
    if not colon or not tokens.isdecimal() or not notice:
        raise argparse.ArgumentTypeError(f"expected TOKENS:TEXT, got '{word}'")
    return int(tokens), notice
