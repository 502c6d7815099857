"""The table of architectures: what a run of them gives is what docs/models.md says."""

import pytest
import transformers

from bench import architectures
from bench.architectures import PAGE, Outcome, committed, names, outcome, section, short, version_of


def test_the_committed_table_is_what_the_proofs_give_and_nothing_wrong_is_let_through():
    part = committed(PAGE.read_text())
    if version_of(part) != transformers.__version__:
        pytest.skip(
            f"docs/models.md is of transformers {version_of(part)}, this is {transformers.__version__}"
        )
    found = [outcome(name) for name in names()]
    assert [f"{one.name}: {one.wrong}" for one in found if one.wrong] == []
    assert section(found).splitlines() == part.splitlines()


def test_an_architecture_that_decodes_wrongly_is_reported_as_wrong(monkeypatch):
    monkeypatch.setattr(architectures, "greedy", lambda model: [[50]] * 4)
    monkeypatch.setattr(architectures, "gradient_error", lambda model: 0.5)
    wrong = outcome("llama").wrong
    assert wrong.startswith("decodes ")
    assert wrong.endswith("gradient off by 0.5")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("model: mamba keeps a recurrent state; the slot cache holds keys", "keeps a recurrent state"),
        ("model: BartForCausalLM.forward takes no position_ids", "forward takes no position_ids"),
        (
            "model: gpt_neo cannot be decoded in slots: the logprobs of a long row (5 and 48 tokens) differ "
            "by 0.1 from those it has alone; its configuration declares window_size=32",
            "the logprobs of a long row differ",
        ),
        (
            "model: X (x) cannot be trained: its forward pass fails (TypeError: a (b))",
            "its forward pass fails",
        ),
        ("X (x): its attention does not; its rows are padded in updates instead", "its attention does not"),
    ],
)
def test_a_reason_is_told_without_names_and_numbers(message, said):
    assert short(message) == said


def test_architectures_of_one_outcome_share_a_row_and_proven_ones_come_first():
    rows = section(
        [Outcome("b", "refused: x", "packed"), Outcome("a", "yes", "packed"), Outcome("c", "yes", "packed")]
    )
    table = [line for line in rows.splitlines() if line.startswith("|")]
    assert table[2:] == ["| yes | packed | `a`, `c` |", "| refused: x | packed | `b` |"]


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="expected the marks"):
        committed("words")
