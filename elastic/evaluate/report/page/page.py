"""Puts template, style, scripts and payload together."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

# The script is these files in this order.
_SCRIPTS = (
    "elements",
    "scales",
    "drawing",
    "chart",
    "table",
    "answer",
    "problems",
    "traces",
    "parts",
    "main",
)


def render(payload: Mapping[str, Any]) -> str:
    """The report of a payload as one HTML file.

    The file loads nothing: a content security policy names the hashes of its own script and style and
    refuses everything else, so that text of a model can neither run nor fetch.

    Args:
        payload: as `elastic.evaluate.report.payload` makes it.

    Raises:
        ValueError: a number of the payload is not finite.
    """
    folder = files("elastic.evaluate.report.page")
    names = ("template.html", "style.css", *(f"{name}.js" for name in _SCRIPTS))
    template, style, *scripts = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    script = "\n".join(scripts)
    return Template(template).substitute(
        title=html.escape(_printable(str(payload["title"]))),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        payload=embedded(payload),
    )


def embedded(payload: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element in which it stands.

    Raises:
        ValueError: a number is not finite; JSON has no word for it.
    """
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _printable(text.replace("<", "\\u003c"))


def _printable(text: str) -> str:
    """Lone surrogates, which UTF-8 cannot hold, as JSON's escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _hash(text: str) -> str:
    """The source of a policy that allows this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
