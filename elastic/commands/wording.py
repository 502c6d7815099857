"""Rewords messages that name Python arguments, for users of flags and of configuration files."""

import argparse
import re
from collections.abc import Callable, Mapping

# Arguments of the library and the keys of a training configuration that set them.
_KEYS = {
    "model": ("path", "dtype", "device", "attention", "allow_missing"),
    "data": ("add_special_tokens",),
    "rollout": ("engine", "max_new_tokens", "max_rows", "temperature", "top_k", "top_p", "min_p"),
    "budget": (
        *("thinking", "solution", "total", "closing", "on_eos", "on_reopen", "on_reclose", "min_thinking"),
        *("extension", "max_extensions", "notices", "grace", "boundary", "whole_characters"),
    ),
}
MARKERS = "pass the markers of this model"
_QUOTES = "'\""
_TOML = {"True": "true", "False": "false"}


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The flag that sets each argument, of all flags that a command has: `{"top_p": "--top-p"}`.

    Of one that only turns something off it is the opposite: `{"sandbox": "--sandbox"}` of `--no-sandbox`.
    """
    named = {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}
    return {name: flag.replace("--no-", "--", 1) for name, flag in named.items()}


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message in the words of a command line: `top_p: ...` is `--top-p: ...`, `stream=True` is `--stream`.

    Prompts are numbered from 1, as they are shown.

    Args:
        message: of an error or a warning.
        flags: by the arguments of Python that they set.
    """
    flags = {**flags, "path": "MODEL"}

    def assign(flag: str, value: str) -> str:
        if value in _TOML:
            return flag if value == "True" else flag.replace("--", "--no-", 1)
        return f"{flag} {'none' if value == 'None' else value.strip(_QUOTES)}"

    message = message.replace(MARKERS, "give --start-marker and --end-marker")
    message = re.sub(r"\bprompt (\d+)", lambda found: f"prompt {int(found[1]) + 1}", message)
    message = _reworded(message, flags, assign)
    for name, flag in flags.items():
        if "_" in name:  # so it is no word of a sentence
            message = re.sub(rf"(?<![\w.'\"-]){name}(?![\w=])", flag, message)
    return message


def in_keys(message: str) -> str:
    """A message in the words of a training configuration: `top_p: ...` is `rollout.top_p: ...`."""
    keys = {name: f"{table}.{name}" for table, names in _KEYS.items() for name in names}
    message = message.replace(MARKERS, "give model.start_marker and model.end_marker")
    return _reworded(message, keys, lambda key, value: f"{key} = {_TOML.get(value, value)}")


def _reworded(message: str, names: Mapping[str, str], assign: Callable[[str, str], str]) -> str:
    name = "|".join(map(re.escape, names))
    # At the start of a sentence only; behind a table's name ("[loss]: ") the key is already meant.
    message = re.sub(rf"(^|(?<!\]): )({name})(?=: )", lambda found: found[1] + names[found[2]], message)
    pattern = rf"(?<![\w.'\"-])({name})=([\w.-]*\w|'[^']*'|\"[^\"]*\")"
    return re.sub(pattern, lambda found: assign(names[found[1]], found[2]), message)
