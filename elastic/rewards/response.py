"""Which part of a response is graded."""

END_MARKER = "</think>"


def solution_text(response: str, end_marker: str | None = END_MARKER) -> str | None:
    """The text behind the first end marker; None if thinking was never closed.

    A solution that writes the marker again keeps all of its text: only the first one closes thinking.

    Args:
        response: decoded text of a completion, without the prompt.
        end_marker: None means that the whole response is solution.

    Raises:
        ValueError: ``end_marker`` is empty.
    """
    if end_marker is None:
        return response
    if not end_marker:
        raise ValueError("end_marker must not be empty; None grades the whole response")
    _, found, behind = response.partition(end_marker)
    return behind if found else None


def graded_response(solution: str | None) -> str:
    """The response that a reward function gets for a completion whose phases are known.

    Only the decoder knows where the solution starts. In the text, a thought may spell the marker with other
    tokens, a row that answered at once has no marker, and a model may have markers of its own. So the
    response is rebuilt: `END_MARKER`, then the solution; empty for a thought that never ended.

    Args:
        solution: text behind the end marker; None if the row never came that far.
    """
    return "" if solution is None else END_MARKER + solution
