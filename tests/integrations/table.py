"""The table of rules and engines in docs/engines.md: `python -m tests.integrations.table` writes it.

Every cell is a test that exists, or a gap in words. Rules that `rules` has scenarios for are proven by the
test that plays them; the others by a test of their own.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import ascii_lowercase

from tests.integrations.rules import SCENARIOS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- rules -->", "<!-- end of rules -->"

RULES = {
    "R1": "a cut forces the closing text",
    "R2": "a natural end forces nothing",
    "R3": "a cut inside a marker writes its rest",
    "R4": "what a closing text may be",
    "R5": "forced tokens count against nothing",
    "R6": "EOS while thinking",
    "R7": "the solution budget",
    "R8": "start markers that come later",
    "R9": "where a row starts",
    "R10": "a row rebuilt from its history",
    "R11": "least thinking, extensions",
    "R12": "notices",
    "R13": "grace",
    "R14": "a total of both",
    "R15": "budgets per row, whatever the batch",
    "R16": "no step waits for the device",
    "R17": "illegal budgets are refused",
    "R18": "further ends, tool calls",
    "R19": "a stated start, tokens already thought",
    "R20": "a second end marker",
    "R21": "whole characters",
    "R22": "thinking ended from outside",
}


@dataclass(frozen=True)
class Engine:
    """A column.

    Attributes:
        name: its heading.
        played: the test that plays the scenarios, "file::function" below tests/.
        proofs: tests of rules in place of it.
        gaps: what does not hold, in words.
        notes: what is to be known where a rule holds.
    """

    name: str
    played: str
    proofs: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def test(self, rule: str) -> str | None:
        """The test that proves a rule; None for a gap.

        Raises:
            ValueError: neither a test nor a gap, or both.
        """
        found = self.proofs.get(rule) or (self.played if rule in PLAYED and rule not in self.gaps else None)
        if (found is None) == (rule not in self.gaps):
            raise ValueError(f"{self.name}: {rule}: expected a test or a gap, and not both")
        return found


PLAYED = {scenario.rule for scenario in SCENARIOS}
_RULES = "integrations/transformers/test_rules.py::"
_OF_A_BATCH = {
    "R15": _RULES + "test_r15_budgets_of_a_batch_differ_and_its_order_changes_nothing",
    **dict.fromkeys(("R4", "R17"), _RULES + "test_a_budget_that_cannot_be_kept_is_refused"),
}
_STEP = "rollout/step/test_step.py::test_no_step_reads_device_memory_on_the_host"
_BEGUN_ANEW = "Every row begins anew, so none is rebuilt; `replay` reads its tokens back all the same"
_V1 = "integrations/vllm/test_rules.py::test_a_request_writes_what_the_rule_says"
_OF_V1 = {
    **dict.fromkeys(
        ("R4", "R17"),
        "integrations/vllm/test_rules.py::test_a_budget_that_cannot_be_kept_is_refused_and_others_go_on",
    ),
    "R10": "integrations/vllm/test_v1_scheduling.py::test_a_request_resumed_without_its_state_is_read_back",
    "R15": "integrations/vllm/test_v1_engine.py::test_64_requests_with_and_without_budgets_beside_each_other",
}
_V2 = "integrations/vllm/test_v2_slots.py::"
_ROWS_IN_PYTHON = "Every step goes over its rows in Python and copies their positions to the device"
_NOT_ONCE_IT_RUNS = "vLLM tells a processor nothing of a request that runs"
_ENDS_BY_EOS = "vLLM ends a request by an EOS alone: one is written behind a spent budget"
_NO_TRACE = "An EOS that the closing replaced leaves no trace in the tokens: such a closing reads as sampled"
_NOBODY = "A trainer's rollouts have nobody outside who could end a thought"
_ALREADY_THOUGHT = "`phase=` states where rows start; tokens already thought cannot be given"

ENGINES = (
    Engine(
        "own engine",
        _RULES + "test_a_row_is_what_the_rule_says",
        {
            **_OF_A_BATCH,
            "R10": "rollout/test_cuts.py::test_a_row_resumed_anywhere_becomes_the_row_of_one_go",
            "R16": _STEP,
        },
    ),
    Engine(
        "`generate`, processor",
        _RULES + "test_a_row_is_what_the_rule_says",
        _OF_A_BATCH,
        {"R10": _BEGUN_ANEW, "R16": "`generate` waits for the device at every step"},
    ),
    Engine(
        "`custom_generate`",
        _RULES + "test_a_row_is_what_the_rule_says",
        {**_OF_A_BATCH, "R16": _STEP},
        {"R10": _BEGUN_ANEW},
    ),
    Engine("vLLM V1", _V1, _OF_V1, {"R16": _ROWS_IN_PYTHON, "R22": _NOT_ONCE_IT_RUNS}, {"R7": _ENDS_BY_EOS}),
    Engine(
        "vLLM V2",
        "integrations/vllm/test_v2_engine.py::test_a_request_writes_what_the_rule_says_whatever_is_drafted",
        {
            **dict.fromkeys(
                ("R4", "R17"),
                "integrations/vllm/test_v2_engine.py::test_a_budget_that_cannot_be_kept_is_refused",
            ),
            "R10": _V2 + "test_a_request_that_returns_with_other_parameters_is_read_back_from_its_tokens",
            "R15": _V2 + "test_any_course_of_events_gives_the_tokens_of_plain_decoding",
            "R16": _V2 + "test_neither_a_step_nor_an_arrival_reads_the_device",
        },
        {"R22": _NOT_ONCE_IT_RUNS},
        {"R7": _ENDS_BY_EOS},
    ),
    Engine(
        "TRL, own engine",
        _RULES + "test_a_row_is_what_the_rule_says",
        {
            **_OF_A_BATCH,
            "R15": "integrations/trl/test_rollout.py::test_budgets_follow_a_column_of_the_dataset",
            "R16": _STEP,
            "R17": "integrations/trl/test_rollout.py::test_what_budgets_cannot_honour_is_refused",
        },
        {"R10": _BEGUN_ANEW, "R22": _NOBODY},
        {"R19": _ALREADY_THOUGHT},
    ),
    Engine(
        "TRL, vLLM server",
        _V1,
        {
            **_OF_V1,
            "R15": "integrations/trl/test_server.py::test_budgets_of_a_column_reach_the_server",
            "R17": "integrations/trl/test_server.py::test_a_budget_that_completions_cannot_hold_is_refused",
        },
        {"R16": _ROWS_IN_PYTHON, "R22": _NOBODY},
        {"R6": _NO_TRACE, "R7": _ENDS_BY_EOS, "R19": _ALREADY_THOUGHT},
    ),
)


@cache
def tests_of(file: str) -> set[str]:
    """The test functions of a file below tests/."""
    path = ROOT / "tests" / file
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def missing() -> list[str]:
    """Tests that the table names and that do not exist."""
    named = {engine.test(rule) for engine in ENGINES for rule in RULES} - {None}
    return sorted(test for test in named if test and test.split("::")[1] not in tests_of(test.split("::")[0]))


def section() -> str:
    """What stands between the marks: the table, its tests by letter, its gaps and notes by number."""
    tests: list[str] = []
    words: list[str] = []

    def cell(engine: Engine, rule: str) -> str:
        test, said = engine.test(rule), engine.gaps.get(rule) or engine.notes.get(rule)
        parts = ["no" if test is None else f"yes {_letter(tests, test)}"]
        if said is not None:
            parts.append(f"({_number(words, said) + 1})")
        return " ".join(parts)

    rows = [
        [f"**{rule}** {title}", *(cell(engine, rule) for engine in ENGINES)] for rule, title in RULES.items()
    ]
    heading = [["rule", *(engine.name for engine in ENGINES)], ["---"] * (len(ENGINES) + 1)]
    lines = [f"| {' | '.join(row)} |" for row in (*heading, *rows)]
    lines += [
        "",
        *(f"- {_letter(tests, test)}: [`{test}`](../tests/{test.split('::')[0]})" for test in tests),
    ]
    lines += ["", *(f"{number}. {text}." for number, text in enumerate(words, 1))]
    return "\n".join([BEGIN, *lines, END])


def _number(known: list[str], one: str) -> int:
    if one not in known:
        known.append(one)
    return known.index(one)


def _letter(known: list[str], one: str) -> str:
    return ascii_lowercase[_number(known, one)]


def written(page: str) -> str:
    """The page with the section as it should be.

    Raises:
        ValueError: a page without the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/engines.md: expected the marks {BEGIN} and {END}")
    return before + section() + after


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(written(PAGE.read_text()))
