"""The rules of SPEC section 2 as scenarios: what a model wants to write, a budget, and what must come out.

Every engine plays the same list, with greedy decoding of `scripted_model`. A script has one token per column:
a forced token takes the place of the one that the model wants there, and the script goes on behind it. Tokens
are bytes, and `<think>`, `</think>`, `<tool_call>`, `</tool_call>`, `<eos>`.

    for scenario in SCENARIOS:
        prompt, budget = scripted_model.prompt_ids(scenario), scenario.budget
        ...decode under scripted_model.markers_of(scenario)...
        assert ids == scripted_model.expected_ids(scenario)

An engine with sources also compares `source`; one without phases that are stated (R19) or thinking ended from
outside (R22) leaves those scenarios out, which its column of docs/engines.md says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elastic.budget import Budget

TAGS: tuple[Any, ...] = ("<think>", "</think>", ("<tool_call>",))
# Of several tokens each; the end has a phrase in front, so that the bare tag is a natural end too (R18).
PIECES: tuple[Any, ...] = ("<t>", "Done.</t>", ("CALL:", "xxy"))


@dataclass(frozen=True)
class Refused:
    """A budget that no row can be decoded under: a ValueError, or status 400, before any token.

    Attributes:
        name: the rule, and what is wrong.
        message: what the error says, a regular expression.
    """

    name: str
    budget: Budget
    message: str


@dataclass(frozen=True)
class Scenario:
    """One row.

    Attributes:
        name: the rule, and what happens.
        prompt: its text.
        script: what the model wants to write, and EOS behind it.
        budget: of the row.
        text: what it writes.
        source: of each token, S (sampled) or F (forced).
        thinking, solution: tokens that count against the budgets.
        finish: name of the finish reason.
        markers: start, end and further ends.
        phase, thinking_used: where the row starts, stated (R19).
        ended: tokens behind which its thinking is ended from outside (R22).
    """

    name: str
    prompt: str
    script: str
    budget: Budget
    text: str
    source: str
    thinking: int
    solution: int
    finish: str = "SOLUTION_BUDGET"
    markers: tuple[Any, ...] = TAGS
    phase: str | None = None
    thinking_used: int | None = None
    ended: int | None = None

    @property
    def rule(self) -> str:
        return self.name.split()[0]


MESSAGE = "so</think>!"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("R1 a cut", "<think>", "abcdefghi", Budget(3, 2), "abc</think>ef", "SSSFSS", 3, 2),
    Scenario(
        "R1 a cut with a message",
        *("<think>", "abcdefghi", Budget(3, 2, closing=MESSAGE)),
        *("abcso</think>!hi", "SSSFFFFSS", 3, 2),
    ),
    Scenario(
        "R2 a natural end",
        *("<think>", "ab</think>cdefghij<eos>", Budget(3, 20, closing=MESSAGE)),
        *("ab</think>cdefghij<eos>", "S" * 12, 2, 9, "STOP"),
    ),
    Scenario(
        "R3 a cut inside the marker",
        *("<t>", "aDo.......xyz", Budget(3, 2)),
        *("aDone.</t>xy", "SSS" + "F" * 7 + "SS", 1, 2),
        markers=PIECES,
    ),
    Scenario(
        "R4 what stands behind the marker is forced",
        *("<think>", "abcdefghij<eos>", Budget(1, 3, closing="</think>\n\n")),
        *("a</think>\n\nefg", "SFFFSSS", 1, 3),
    ),
    Scenario(
        "R5 the most that a row emits",
        "<think>",
        "abc</think>efghijklmno",
        Budget(4, 3, closing=MESSAGE, notices=((1, "NN"),), min_thinking=3, extension="W", max_extensions=1),
        *("aNNWefgso</think>!lmn", "SFFFSSSFFFFSSS", 4, 3),
    ),
    Scenario(
        "R6 EOS while thinking",
        *("<think>", "a<eos>...yz", Budget(9, 2, closing=MESSAGE)),
        *("aso</think>!yz", "SFFFFSS", 1, 2),
    ),
    Scenario(
        "R6 EOS that may end thinking",
        *("<think>", "a<eos>xyz", Budget(9, 2, on_eos="stop"), "a<eos>", "SS", 2, 0, "STOP"),
    ),
    Scenario(
        "R7 EOS as the last token",
        "<think>",
        "a</think>b<eos>",
        Budget(4, 2),
        "a</think>b<eos>",
        "SSSS",
        1,
        2,
        "STOP",
    ),
    Scenario(
        "R7 EOS as the first token",
        "<think>",
        "a</think><eos>",
        Budget(4, 2),
        "a</think><eos>",
        "SSS",
        1,
        1,
        "STOP",
    ),
    Scenario(
        "R8 a start marker resets nothing",
        *("<think>", "ab<think>cdefg", Budget(4, 1), "ab<think>c</think>e", "SSSSFS", 4, 1),
    ),
    Scenario(
        "R8 a start marker in the solution is text",
        *("<think>", "a</think><think>bcdefg", Budget(4, 3), "a</think><think>bc", "SSSSS", 1, 3),
    ),
    Scenario(
        "R8 a start marker in the solution is masked",
        *("<think>", "a</think><think>bcdefg", Budget(4, 3, on_reopen="forbid")),
        *("a</think>~bc", "SSSSS", 1, 3),
    ),
    Scenario(
        "R9 thinking that the model opens",
        "say: ",
        "\n<think>abcdef",
        Budget(2, 2),
        "\n<think>ab</think>de",
        "SSSSFSS",
        2,
        2,
    ),
    Scenario("R9 a row that does not think", "say: ", " abcdef", Budget(2, 3), " abc", "SSSS", 0, 3),
    Scenario("R9 no thinking at all", "<think>", "abcdef", Budget(0, 2), "</think>bc", "FSS", 0, 2),
    Scenario(
        "R11 an end that comes too early",
        "<think>",
        "a</think>...ef</think>h<eos>",
        Budget(9, 4, min_thinking=3, extension="Wait", max_extensions=1),
        *("aWaitef</think>h<eos>", "SFFFFSSSSS", 3, 2, "STOP"),
    ),
    Scenario(
        "R12 a notice",
        *("<think>", "abcdefghijk", Budget(4, 1, notices=((2, "(2)"),))),
        *("ab(2)fg</think>i", "SSFFFSSFS", 4, 1),
    ),
    Scenario(
        "R13 grace up to a full stop",
        *("<think>", "abcd.fghij", Budget(2, 2, grace=5, boundary=".")),
        *("abcd.</think>gh", "SSSSSFSS", 5, 2),
    ),
    Scenario(
        "R14 the vanilla cut", "<think>", "abcdefg", Budget.vanilla(4), "abcd", "SSSS", 4, 0, "TOTAL_BUDGET"
    ),
    Scenario(
        "R14 a total of both",
        *("<think>", "abcdefghi", Budget(3, 9, total=5), "abc</think>ef", "SSSFSS", 3, 2, "TOTAL_BUDGET"),
    ),
    Scenario(
        "R18 a tool call ends thinking",
        *("<think>", "ab<tool_call>x</tool_call><eos>", Budget(3, 9)),
        *("ab<tool_call>x</tool_call><eos>", "S" * 6, 2, 4, "STOP"),
    ),
    Scenario(
        "R18 a tool call of several tokens",
        *("<t>", "abCALL:x<eos>", Budget(9, 20), "abCALL:x<eos>", "S" * 9, 2, 7, "STOP"),
        markers=PIECES,
    ),
    Scenario(
        "R18 an end that overlaps itself",
        *("<t>", "axxxyz<eos>", Budget(9, 9), "axxxyz<eos>", "S" * 7, 2, 5, "STOP"),
        markers=PIECES,
    ),
    Scenario(
        "R18 the bare tag ends thinking",
        "<t>",
        "ab</t>xy<eos>",
        Budget(9, 9),
        "ab</t>xy<eos>",
        "S" * 9,
        2,
        3,
        "STOP",
        PIECES,
    ),
    Scenario(
        "R18 a cut inside the bare tag",
        "<t>",
        "a</..xyz",
        Budget(3, 2),
        "a</t>xy",
        "SSSFFSS",
        1,
        2,
        markers=PIECES,
    ),
    Scenario(
        "R19 tokens already thought",
        *("<think>ab", "cdefgh", Budget(3, 2), "c</think>ef", "SFSS", 3, 2),
        phase="thinking",
        thinking_used=2,
    ),
    Scenario(
        "R20 a second end is text",
        *("<think>", "abcd</think>fgh", Budget(2, 3), "ab</think>d</think>f", "SSFSSS", 2, 3),
    ),
    Scenario(
        "R20 a second end is masked",
        *("<think>", "abcd</think>fgh", Budget(2, 3, on_reclose="forbid"), "ab</think>d~f", "SSFSSS", 2, 3),
    ),
    Scenario(
        "R21 a cut waits for the character",
        *("<think>", "a世bcdef", Budget(2, 2, whole_characters=True), "a世</think>cd", "SSSSFSS", 4, 2),
    ),
    Scenario(
        "R22 thinking ended from outside",
        *("<think>", "abcdefghijk", Budget(9, 2, closing=MESSAGE), "abso</think>!gh", "SSFFFFSS", 2, 2),
        ended=2,
    ),
)

REFUSED = (
    Refused("R4 a closing without the end marker", Budget(3, 3, closing="enough"), "end marker"),
    Refused("R4 a closing with two end markers", Budget(3, 3, closing="</think></think>"), "found 2"),
    Refused("R4 a closing with the start marker", Budget(3, 3, closing="<think></think>"), "start marker"),
    Refused("R17 a budget beyond the context", Budget(100_000, 3), "context"),
)
