"""Files of prompts for `elastic generate`."""

import pytest

from elastic.commands.generate import read_prompts

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (MARK + "How many?\nWhy, π?\n".encode(), ["How many?", "Why, π?"]),
        (b"One?\r\n\r\n  Two? \r\n", ["One?", "  Two? "]),
        (MARK + b"\n" + MARK + b"One?", ["One?"]),
        ("One\u2028line?\n".encode(), ["One\u2028line?"]),
    ],
)
def test_a_text_file_has_one_prompt_a_line_without_marks(tmp_path, content, prompts):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    assert read_prompts(path) == prompts


@pytest.mark.parametrize("content", [MARK, MARK + b"\r\n \n", b""])
def test_a_file_of_nothing_but_marks_holds_no_prompt(tmp_path, content):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"prompts.txt: holds no prompt"):
        read_prompts(path)


def test_problems_without_answers_are_prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(MARK + b'{"prompt": "One?"}\n{"question": "Two?", "answer": null}\n')
    assert read_prompts(path) == ["One?", "Two?"]
    path = tmp_path / "prompts.json"
    path.write_text('[{"prompt": "One?"}, {"prompt": 2}]')
    with pytest.raises(
        ValueError, match=r"prompts.json, item 1, field 'prompt': expected non-empty text, got 2"
    ):
        read_prompts(path)
