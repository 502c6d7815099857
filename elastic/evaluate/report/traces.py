"""Completions of several models side by side, as text."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from elastic.budget import FinishReason
from elastic.evaluate.report.segments import segments
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure
from elastic.rollout.record.spans import Decode

_WIDTH = 110
_INDENT = 11  # of text behind the longest label


@dataclass(frozen=True)
class Completion:
    """One completion, ready to print.

    Attributes:
        heading: which model it is from.
        correct: whether its answer is right.
        facts: thinking and solution tokens, whether the thought was cut, why it ended.
        runs: (kind, text) in order; kind is `thinking`, `forced` or `solution`.
    """

    heading: str
    correct: bool
    facts: str
    runs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Example:
    """One problem and what several models answered.

    Attributes:
        title: problem and budget, in words.
        prompt: what the model read.
        answer: the right one.
        completions: in the order in which they are shown.
    """

    title: str
    prompt: str
    answer: str
    completions: tuple[Completion, ...]


def completion(batch: RolloutBatch, row: int, decode: Decode, *, heading: str, correct: bool) -> Completion:
    """Takes one row out of a batch.

    Args:
        batch: at least `row + 1` rows.
        row: index in the batch.
        decode: ids to text, special tokens kept.
        heading: which model it is from.
        correct: the reward's verdict.
    """
    length = int(batch.lengths[row])
    tokens, source, phase = (
        field[row, :length].tolist() for field in (batch.tokens, batch.source, batch.phase)
    )
    runs = tuple((segment.kind.value, decode(segment.tokens)) for segment in segments(tokens, source, phase))
    return Completion(heading, correct, facts(batch, row), runs)


def facts(batch: RolloutBatch, row: int) -> str:
    """`31 thinking tokens (cut), 6 solution tokens, ended by stop` for one row of a batch."""
    rows = measure(batch[row])
    cut = " (cut)" if bool(rows.thinking_cut) else ""
    reason = FinishReason(int(batch.finish_reason[row])).text
    thinking, solution = int(rows.thinking_tokens), int(rows.solution_tokens)
    return f"{thinking} thinking tokens{cut}, {solution} solution tokens, ended by {reason}"


def traces_text(examples: Sequence[Example], introduction: str) -> str:
    """All examples as one text of lines up to 110 characters, with every run behind its label."""
    blocks = [textwrap.fill(introduction, _WIDTH)]
    for number, example in enumerate(examples, start=1):
        lines = [
            "=" * _WIDTH,
            f"{number}. {example.title}",
            f"   prompt: {example.prompt}   right answer: {example.answer}",
        ]
        for item in example.completions:
            verdict = "right" if item.correct else "wrong"
            lines += ["", f"--- {item.heading}: {verdict}; {item.facts}"]
            lines += [_labelled(kind, text) for kind, text in item.runs]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _labelled(kind: str, text: str) -> str:
    label = f"[{kind}]".ljust(_INDENT)
    # With line breaks escaped they are visible, and every line starts with one of our labels.
    shown = text.strip().replace("\n", "\\n") or "(nothing but white space)"
    return textwrap.fill(shown, _WIDTH, initial_indent=label, subsequent_indent=" " * _INDENT)
