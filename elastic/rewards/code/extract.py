"""Finds the program in a solution: its last fenced block of Python."""

import re
from dataclasses import dataclass, field

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*?)[ \t]*")
_PYTHON = {"python", "py", "python3", "py3"}
_WRAPPERS = {"", "markdown", "md"}  # what may hold a block of Python as its text
_DEEPER = 4  # spaces from which on a line of marks is text, as in CommonMark
_SPECIAL_TOKENS = re.compile(r"(?:\s*(?:<[|｜][^<>\n]*[|｜]>|</s>|<eos>))+\s*\Z")


@dataclass
class _Block:
    indent: int
    marks: str
    language: str
    lines: list[str] = field(default_factory=list)
    open_inside: int = 0

    @property
    def text(self) -> str:
        """Without the indentation of the opening fence."""
        margin = re.compile(rf"[ \t]{{0,{self.indent}}}")
        return "\n".join(margin.sub("", line, count=1) for line in self.lines) + "\n"


def program(solution: str) -> str | None:
    """The program that a solution states; None if it states none.

    The last block that is marked as Python, or, where none is, the last one without a language: what stands
    behind a program is often its output. The last block may lack its closing fence, in a solution that was
    cut. Fences inside a block belong to it, as those of a docstring's example.

    Args:
        solution: text behind the end marker, never the thought.
    """
    blocks = _blocks(_SPECIAL_TOKENS.sub("", solution))
    for languages in (_PYTHON, {""}):
        found = [block for block in blocks if block.language in languages]
        if found:
            return found[-1].text
    return None


def _blocks(text: str) -> list[_Block]:
    found: list[_Block] = []
    block: _Block | None = None
    for line in text.splitlines():
        fence = _FENCE.fullmatch(line)
        indent = len(fence["indent"].expandtabs(4)) if fence else 0
        language = fence["info"].split()[0].lower() if fence and fence["info"] else ""
        if block is None:
            if fence:
                block = _Block(indent, fence["marks"], language.strip("{}."))
                found.append(block)
        elif not fence or indent >= block.indent + _DEEPER:
            block.lines.append(line)
        elif language in _PYTHON and block.language in _WRAPPERS:
            block = _Block(indent, fence["marks"], language)
            found.append(block)
        elif language:
            block.open_inside += 1
            block.lines.append(line)
        elif block.open_inside or not fence["marks"].startswith(block.marks):
            block.open_inside = max(0, block.open_inside - 1)
            block.lines.append(line)
        else:
            block = None
    return found
