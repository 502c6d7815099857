"""The `elastic` command. Each subcommand imports what it needs when it runs."""

import argparse
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from elastic import __version__
from elastic.commands import eval_flags
from elastic.commands.generate_flags import add_flags, check_flags
from elastic.commands.generate_request import request_of
from elastic.commands.wording import flags_of, in_flags, in_keys

EXIT_USER_ERROR = 2
_PACKAGE = Path(__file__).parent.parent  # whose warnings are meant for users
TRACEBACK_VARIABLE = "ELASTIC_TRACEBACK"

# optional module -> the extra that brings it
_EXTRAS = {"accelerate": "train", "matplotlib": "eval"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    A user's mistake (a bad value, a missing file) is one line on stderr and status 2; `--traceback` or
    ELASTIC_TRACEBACK=1 shows where it was found. Any other error is a bug and keeps its traceback.
    """
    if sys.stderr is None:  # closed by the shell: 2>&-
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stdout is None:
        return _refuse("stdout is closed; use > /dev/null for no output")
    options = argparse.Namespace(traceback=False)
    try:
        try:
            _run(arguments, options)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("elastic: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _drop_output()  # the reader (`head`, say) has closed the pipe
        return 128 + signal.SIGPIPE
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if options.traceback or os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        _drop_output()
        return _refuse(_one_line(error), options)
    return 0


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> None:
    # A model's text may hold characters that the terminal's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    _parser().parse_args(arguments, options)
    # Must be set before torch loads OpenMP: threads that spin while they wait can slow small models 60 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    _quiet_imports()
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, warnings.showwarning, options)
        options.run(options)


def _quiet_imports() -> None:
    """Drops what packages that are merely installed log while accelerate or peft import them."""
    names = ["bitsandbytes.backends.cpu.ops"]
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        names.append("DeepSpeed")  # which logs to stdout
    for name in names:
        # A filter, since DeepSpeed sets its logger's level when it is imported.
        logging.getLogger(name).addFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _show_warning(
    otherwise: Callable[..., None],
    options: argparse.Namespace,
    message: Warning | str,
    category: type[Warning],
    filename: str,
    *where: Any,
    **named: Any,
) -> None:
    """A line for a warning of ours; others are for developers, and would only fill a log."""
    if Path(filename).is_relative_to(_PACKAGE):
        print(f"elastic: warning: {options.reworded(' '.join(str(message).split()))}", file=sys.stderr)
    elif sys.stderr.isatty():
        otherwise(message, category, filename, *where, **named)


def _drop_output() -> None:
    """Discards stdout: Python flushes it once more at exit and would report the closed pipe or full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str, options: argparse.Namespace | None = None) -> int:
    message = getattr(options, "reworded", str)(message)
    print(f"elastic: error: {message}", file=sys.stderr)
    return EXIT_USER_ERROR


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        text += f"; install it with: pip install 'elastic[{_EXTRAS[error.name]}]'"
    return text


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as for every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"elastic: error: {message}; see {self.prog} --help\n")


def _demo(options: argparse.Namespace) -> None:
    from elastic.commands.demo import DemoConfig, run

    run(DemoConfig(seed=options.seed), options.out)


def _generate(options: argparse.Namespace) -> None:
    check_flags(options)
    request = request_of(options)
    # Imported only now, so that mistakes in flags are reported without loading torch.
    from elastic.commands.generate import run

    run(request, sys.stdout)


def _eval(options: argparse.Namespace) -> None:
    request = eval_flags.eval_request(options)
    from elastic.commands.eval import run

    run(request, sys.stdout)


def _train(options: argparse.Namespace) -> None:
    from elastic.train import TrainConfig, train_from_config

    config = TrainConfig.load(options.config)
    if options.resume is not None:
        config = replace(config, train=config.train.overridden(resume=options.resume))
    if options.engine is not None:
        config = replace(config, rollout=config.rollout.overridden(engine=options.engine))
    if options.plan:
        from elastic.train.planning.run_plan import plan_run
        from elastic.train.planning.text import text

        plan = plan_run(config, options.rates)
        print(plan.to_json() if options.json else text(plan))
        return
    for flag in ("rates", "json"):
        if getattr(options, flag):
            raise ValueError(f"--{flag}: only with --plan")
    train_from_config(config)


def _report(options: argparse.Namespace) -> None:
    from elastic.commands.report import MOST_PROBLEMS, write_report

    most = MOST_PROBLEMS if options.most_problems is None else options.most_problems
    size = write_report(options.runs, options.out, title=options.title, most_problems=most)
    print(f"elastic: report: {options.out}, {size / 1e6:.2f} MB", file=sys.stderr)


def _info(options: argparse.Namespace) -> None:
    from elastic.commands import info

    facts = info.collect()
    print(json.dumps(facts, indent=2) if options.json else info.text(facts))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="elastic", description="Separate thinking and solution token budgets for reasoning models."
    )
    parser.add_argument("--version", action="version", version=f"elastic {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error was found")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_demo, _add_generate, _add_eval, _add_train, _add_report, _add_info):
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
    demo.set_defaults(run=_demo, reworded=partial(in_flags, flags=flags_of(demo)))


def _add_generate(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    generate = commands.add_parser(
        "generate",
        parents=[common],
        help="completions under budgets",
        usage="%(prog)s MODEL (--prompt TEXT | --prompts FILE) [options]",
    )
    add_flags(generate)
    flags = flags_of(generate)
    del flags["prompts"]  # messages about prompts name the one that is meant
    generate.set_defaults(run=_generate, reworded=partial(in_flags, flags=flags))


def _add_eval(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser(
        "eval",
        parents=[common],
        help="methods under budgets on sets of problems",
        usage="%(prog)s MODEL --data NAME|FILE,... --methods NAME,... --budgets T:S,... --out DIR [options]",
    )
    eval_flags.add_flags(evaluate)
    evaluate.set_defaults(run=_eval, reworded=partial(in_flags, flags=flags_of(evaluate)))


def _add_train(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    train = commands.add_parser("train", parents=[common], help="GRPO with rollouts under budgets")
    train.add_argument("config", type=Path, metavar="CONFIG.toml")
    train.add_argument(
        "--resume",
        choices=("auto", "never"),
        help="overrides train.resume of the file; auto goes on where it was",
    )
    train.add_argument(
        "--engine", choices=("own", "vllm"), help="what decodes; overrides rollout.engine of the file"
    )
    train.add_argument(
        "--plan",
        action="store_true",
        help="say what the run would take; nothing is trained",
    )
    train.add_argument(
        "--rates", type=Path, metavar="RUN", help="of --plan: an earlier run's directory or metrics.jsonl"
    )
    train.add_argument("--json", action="store_true", help="of --plan: as JSON")
    train.set_defaults(run=_train, reworded=in_keys)


def _add_report(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    report = commands.add_parser("report", parents=[common], help="finished runs as one HTML file")
    report.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of elastic eval, train or demo, or of make replicate; of several the base first",
    )
    report.add_argument("--out", type=Path, default=Path("report.html"), help="default report.html")
    report.add_argument("--title", help="of the page; by default the names of the runs")
    report.add_argument(
        "--most-problems", type=int, metavar="N", help="in the traces, at most (default 500); 0 for none"
    )
    report.set_defaults(run=_report, reworded=partial(in_flags, flags=flags_of(report)))


def _add_info(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    info = commands.add_parser(
        "info", parents=[common], help="versions, build, instruction set, devices, threads"
    )
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info, reworded=str)
