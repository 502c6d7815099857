"""The reward for mathematics: whether a solution's final answer is right."""

from elastic.rewards.equal import equal_answers
from elastic.rewards.response import END_MARKER, solution_text
from elastic.rewards.stated import Boxes, final_answer


def math_reward(
    response: str,
    answer: str,
    *,
    end_marker: str | None = END_MARKER,
    boxes: Boxes = "last",
    answer_tags: bool = False,
) -> float:
    """1.0 if the solution's final answer equals ``answer``, otherwise 0.0.

    Only text behind the first end marker counts, whatever the solution repeats; a response that never
    closes its thinking gets 0.0. The final answer is the last ``\\boxed{...}`` that holds something; without
    one, what follows the last "answer is", "Final Answer:" or "####". A number somewhere in a solution that
    was cut is no answer.

    Equal text and equal numbers are decided here. Expressions go to the library math-verify where it is
    installed (``elastic[train]``, ``elastic[eval]``), within 2 s of processor time and 1 GiB per pair;
    without it such pairs count as different, and a warning says so once. docs/grading.md has the rules.

    Args:
        response: decoded text of a completion, without the prompt.
        answer: the reference answer, LaTeX or a number.
        end_marker: None grades the whole response.
        boxes: ``all`` takes the different boxes as a list, see `elastic.rewards.stated.final_answer`.
        answer_tags: whether a last ``<answer>...</answer>`` has precedence over boxes and phrases.

    Raises:
        ValueError: an empty ``end_marker``, an unknown ``boxes``.
        RuntimeError: the process that runs math-verify does not start.
    """
    solution = solution_text(response, end_marker)
    if solution is None:
        return 0.0
    stated = final_answer(solution, boxes=boxes, answer_tags=answer_tags)
    return 1.0 if stated is not None and equal_answers(stated, answer) else 0.0
