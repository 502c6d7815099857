"""The `elastic` command. Each subcommand imports what it needs when it runs."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elastic import __version__

EXIT_USER_ERROR = 2
TRACEBACK_VARIABLE = "ELASTIC_TRACEBACK"

# optional module -> the extra that brings it
_EXTRAS = {"accelerate": "train", "matplotlib": "eval"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    A user's mistake (a bad value, a missing file) is one line on stderr and status 2; `--traceback` or
    ELASTIC_TRACEBACK=1 shows where it was found. Anything else keeps its traceback: it is our mistake.
    """
    options = _parser().parse_args(arguments)
    # Must be set before torch loads OpenMP: spinning threads slow small models down by tens of times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("elastic: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader (`head`) has enough. Python would complain once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, TypeError, OSError, ImportError) as error:
        if options.traceback or os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        print(f"elastic: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        text += f"; install it with: pip install 'elastic[{_EXTRAS[error.name]}]'"
    return text


def _demo(options: argparse.Namespace) -> None:
    from elastic.demo import DemoConfig, run

    run(DemoConfig(seed=options.seed), options.out)


def _generate(options: argparse.Namespace) -> None:
    from elastic.budget import Budget
    from elastic.generate import Request, read_prompts, run
    from elastic.sampling import Sampling

    budget = Budget(options.thinking, options.solution, options.total, closing=options.closing)
    if (options.thinking, options.solution) == (None, None) and options.total is not None:
        budget = Budget.vanilla(options.total, closing=options.closing)
    run(
        Request(
            model=options.model,
            prompts=read_prompts(options.prompts) if options.prompts else options.prompt,
            budget=budget,
            sampling=Sampling(
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                min_p=options.min_p,
                seed=options.seed,
            ),
            samples=options.samples,
            chat=options.chat,
            add_special_tokens=options.add_special_tokens,
            stream=options.stream,
            json_path=options.json,
            max_rows=options.max_rows,
            max_new_tokens=options.max_new_tokens,
            device=options.device,
            dtype=options.dtype,
        ),
        sys.stdout,
    )


def _train(options: argparse.Namespace) -> None:
    from elastic.train import TrainConfig, train_from_config

    config = TrainConfig.load(options.config)
    if options.resume is not None:
        config = replace(config, train=replace(config.train, resume=options.resume))
    train_from_config(config)


def _info(options: argparse.Namespace) -> None:
    from elastic import info

    facts = info.collect()
    print(json.dumps(facts, indent=2) if options.json else info.text(facts))


def _tokens(text: str) -> int | None:
    """A budget on the command line; its range is checked where budgets are built."""
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of tokens or 'none', got '{text}'") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elastic", description="Separate thinking and solution token budgets for reasoning models."
    )
    parser.add_argument("--version", action="version", version=f"elastic {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error was found")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_demo, _add_generate, _add_train, _add_info):
        add(commands, common)
    return parser


def _add_demo(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    demo = commands.add_parser(
        "demo", parents=[common], help="the whole story on the embedded model, in minutes"
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo-out"),
        help="directory of the results (default demo-out); goes on with a demo in it",
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)


def _add_generate(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    generate = commands.add_parser("generate", parents=[common], help="completions under budgets")
    generate.add_argument("model", help="a Hugging Face model directory, or 'tiny' for the embedded model")
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", action="append", help="a prompt; may be repeated")
    source.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one prompt a line, or .json/.jsonl problems"
    )
    budget = generate.add_argument_group("budgets, in sampled tokens ('none', the default, for no limit)")
    budget.add_argument("--thinking", type=_tokens, metavar="TOKENS", help="most thinking tokens; 0 is legal")
    budget.add_argument("--solution", type=_tokens, metavar="TOKENS", help="most solution tokens")
    budget.add_argument("--total", type=_tokens, metavar="TOKENS", help="cap over both; alone it cuts hard")
    budget.add_argument(
        "--closing", metavar="NAME|TEXT", help="what ends a cut thought: bare, qwen3, scalerl, s1 or text"
    )
    budget.add_argument("--max-new-tokens", type=int, metavar="TOKENS", help="end of unlimited completions")
    sampling = generate.add_argument_group("sampling")
    sampling.add_argument("--samples", type=int, default=1, help="completions a prompt (default 1)")
    sampling.add_argument("--temperature", type=float, default=0.6, help="default 0.6; 0 is argmax")
    sampling.add_argument("--top-k", type=int, default=0)
    sampling.add_argument("--top-p", type=float, default=1.0)
    sampling.add_argument("--min-p", type=float, default=0.0)
    sampling.add_argument("--seed", type=int, help="of the draws; without it one is drawn and printed")
    chat = generate.add_mutually_exclusive_group()
    chat.add_argument(
        "--chat", action="store_true", default=None, help="prompts are messages for the chat template"
    )
    chat.add_argument("--raw", dest="chat", action="store_false", help="prompts are tokenised as they stand")
    generate.add_argument(
        "--add-special-tokens",
        action=argparse.BooleanOptionalAction,
        help="whether prompts get the BOS, or what else the tokenizer puts in front of a text (default: not)",
    )
    generate.add_argument(
        "--stream", action="store_true", help="show tokens as they come, one completion at a time"
    )
    generate.add_argument(
        "--json", type=Path, metavar="FILE", help="write the completions with all annotations"
    )
    generate.add_argument(
        "--max-rows", type=int, default=64, help="completions decoded together (default 64)"
    )
    generate.add_argument("--device", default="auto")
    generate.add_argument("--dtype", default="auto")
    generate.set_defaults(run=_generate)


def _add_train(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    train = commands.add_parser("train", parents=[common], help="GRPO with rollouts under budgets")
    train.add_argument("config", type=Path, metavar="CONFIG.toml")
    train.add_argument(
        "--resume",
        choices=("auto", "never"),
        help="overrides train.resume of the file; auto goes on where it was",
    )
    train.set_defaults(run=_train)


def _add_info(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    info = commands.add_parser(
        "info", parents=[common], help="versions, build, instruction set, devices, threads"
    )
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info)
