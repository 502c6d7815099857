"""The task's reward: whether the solution states the right answer."""

from elastic.data.sums import END, EOS

_STATEMENT = ("answer", "is")


def stated_answer(response: str) -> str | None:
    """What the solution states behind its last ``answer is``; None if it states nothing.

    The solution is what stands between the first end marker and the first ``<eos>`` behind it, or the
    end of the text: a solution that was cut is read as it stands. Nothing in the thinking counts, and
    everything behind the statement belongs to it, so ``answer is 1 2`` states ``1 2``.

    Args:
        response: decoded text of a completion, special tokens included.
    """
    _, marker, behind = response.partition(END)
    if not marker:
        return None
    words = behind.split(EOS)[0].split()
    for start in range(len(words) - len(_STATEMENT), -1, -1):
        if tuple(words[start : start + len(_STATEMENT)]) == _STATEMENT:
            return " ".join(words[start + len(_STATEMENT) :]) or None
    return None


def reward(response: str, answer: str) -> float:
    """1.0 if the solution states ``answer`` and nothing else behind it, otherwise 0.0.

    Args:
        response: decoded text of a completion (without the prompt), special tokens included.
        answer: the right answer, one digit.
    """
    return 1.0 if stated_answer(response) == answer else 0.0
