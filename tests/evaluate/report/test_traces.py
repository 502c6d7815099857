"""Before and after, as text."""

from elastic.evaluate.report.traces import Completion, Example, traces_text

EXAMPLE = Example(
    title="test problem 1, t = 4, s = 8",
    prompt="<bos> a 1 b + 2 = ? <think>",
    answer="3",
    completions=(
        Completion(
            heading="before, untrained",
            correct=False,
            facts="4 thinking tokens (cut), 2 solution tokens, ended by stop",
            runs=(("thinking", "so far we"), ("forced", "</think>"), ("solution", "answer is 2 <eos>")),
        ),
        Completion(
            "after, E1", True, "2 thinking tokens", (("thinking", "1 + 2 3 </think>"), ("solution", "3"))
        ),
    ),
)


def test_a_trace_marks_thinking_forced_tokens_and_solution() -> None:
    lines = traces_text([EXAMPLE], "Introduction.").splitlines()
    start = lines.index(
        "--- before, untrained: wrong; 4 thinking tokens (cut), 2 solution tokens, ended by stop"
    )
    assert lines[start + 1 : start + 4] == [
        "[thinking] so far we",
        "[forced]   </think>",
        "[solution] answer is 2 <eos>",
    ]


def test_all_models_stand_under_their_problem_with_its_answer() -> None:
    text = traces_text([EXAMPLE, EXAMPLE], "Introduction.")
    assert text.startswith("Introduction.\n")
    assert "2. test problem 1, t = 4, s = 8\n   prompt: <bos> a 1 b + 2 = ? <think>   right answer: 3" in text
    assert text.index("before, untrained: wrong") < text.index("after, E1: right") < text.rindex("before")


def test_long_runs_are_wrapped_behind_their_label_and_line_breaks_are_shown() -> None:
    long = Completion("x", True, "y", (("thinking", "word " * 60 + "\nend"),))
    text = traces_text([Example("t", "p", "a", (long,))], "Introduction.")
    wrapped = [line for line in text.splitlines() if "word" in line]
    assert wrapped[0].startswith("[thinking] word")
    assert all(line.startswith(" " * 11 + "word") for line in wrapped[1:])
    assert all(len(line) <= 110 for line in wrapped)
    assert "\\nend" in text
