"""The methods that are compared: what each makes of a thinking budget t and a solution budget s.

A method is a policy at inference: a `Budget`, and for L1 an instruction in the question. The caller chooses
the model: vanilla, s1, separate budgeting and anytime run on any; the others on one trained for them.

Source: SPEC section 6; the papers are named at each entry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from elastic.budget import Budget
from elastic.rewards.length import Ask, ask_in_words, user_message

BudgetPair = tuple[int | None, int | None]

_CUTS = ("closing", "grace", "notices")
_WAITS = ("min_thinking", "max_extensions", "extension")


@dataclass(frozen=True)
class PolicyOptions:
    """How thinking ends, beside the two numbers; each method reads its own share (`Method.reads`).

    Attributes:
        closing: what is forced when thinking is cut: a key of `elastic.budget.CLOSINGS`, or a text with
            ``{end}``; None is the bare end marker.
        grace: tokens past the thinking budget for a line or sentence to end.
        notices: pairs (used thinking tokens, text); those that a budget never reaches are left out of it.
        min_thinking: an end of thinking before this gives way to `extension`; 0 means up to the budget.
        max_extensions: how often at most.
        extension: the text in its place.
    """

    closing: str | None = None
    grace: int = 0
    notices: tuple[tuple[int, str], ...] = ()
    min_thinking: int = 0
    max_extensions: int = 0
    extension: str = "Wait"

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not at their defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


@dataclass(frozen=True)
class Method:
    """One policy.

    Attributes:
        name: its key in `METHODS`, and in rows and files.
        label: for legends.
        limit: a function from (t, s) and the options that it reads to the budget of the rows.
        reads: names of `PolicyOptions` that it reads.
        one_cap: whether t and s only matter through their sum, so that neither may be None alone.
        length: how the question asks for t + s tokens, see `elastic.rewards.length`; `none`: it does not.
        one_thought: whether one thought is cut at every budget, instead of one thought a budget.
    """

    name: str
    label: str
    limit: Callable[..., Budget]
    reads: tuple[str, ...] = ()
    one_cap: bool = False
    length: str = "none"
    one_thought: bool = False

    def budget(
        self, thinking: int | None, solution: int | None, options: PolicyOptions | None = None
    ) -> Budget:
        """The budget of the rows; unlimited where both are None.

        Args:
            thinking: most thinking tokens, None for no limit.
            solution: most solution tokens, None likewise.
            options: those that the method does not read are left aside; see `check_options`.

        Raises:
            ValueError: one is out of range, or is None alone where only the sum counts.
        """
        if self.one_cap and (thinking is None) != (solution is None):
            raise ValueError(
                f"{self.name}: give thinking and solution, or neither, got {thinking} and {solution}"
            )
        Budget(thinking, solution)  # the range check, for every method alike
        given = (options or PolicyOptions()).given
        read = {name: value for name, value in given.items() if name in self.reads}
        if thinking is None and solution is None:
            return Budget.unlimited(**_reached(None, read))
        return self.limit(thinking, solution, **_reached(thinking, read))

    def total(self, thinking: int | None, solution: int | None) -> int | None:
        """t + s where that is all that counts, else None."""
        return thinking + solution if self.one_cap and thinking is not None and solution is not None else None

    def question(
        self,
        text: str,
        thinking: int | None,
        solution: int | None,
        suffix: str = "",
        ask: Ask = ask_in_words,
    ) -> str:
        """The user's message, as in the method's training; without budgets it asks for no length.

        Args:
            text: the question; the complete prompt of a named set, with the set's own `ask`.
            thinking: t.
            solution: s.
            suffix: a line behind the question.
            ask: adds the request, see `elastic.rewards.length.user_message`.
        """
        total = self.total(thinking, solution)
        return user_message(text, suffix=suffix, length=self.length, target_tokens=total, ask=ask)


def _reached(thinking: int | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options as a thinking budget can reach them: what lies beyond it has no effect there."""
    found = dict(options)
    if thinking is None:
        found.pop("grace", None)
        if not found.get("min_thinking"):  # without a limit there is nothing to wait for
            found = {name: value for name, value in found.items() if name not in _WAITS}
    else:
        found["notices"] = tuple(notice for notice in found.get("notices", ()) if notice[0] < thinking)
        least = min(found.get("min_thinking", 0) or thinking, thinking)
        if found.get("max_extensions") and least:
            found["min_thinking"] = least
        else:
            found = {name: value for name, value in found.items() if name not in _WAITS}
    return {name: value for name, value in found.items() if value}


def _asked(thinking: int | None, solution: int | None) -> Budget:
    return Budget.unlimited()


def _cut_hard(thinking: int, solution: int) -> Budget:
    return Budget.vanilla(thinking + solution)


_TABLE = (
    Method("vanilla", "vanilla: one cap, cut hard", _cut_hard, one_cap=True),
    # arXiv 2501.19393: thinking is cut with "Final Answer:", an early end is replaced by "Wait".
    Method("s1", "s1: budget forcing", Budget.s1, reads=_WAITS),
    Method("separate", "separate budgeting, untrained", Budget, reads=_CUTS),
    # arXiv 2503.04697: the model is told and nothing is enforced; N counts the whole response.
    Method("l1_exact", "L1-Exact", _asked, one_cap=True, length="l1-exact"),
    Method("l1_max", "L1-Max", _asked, one_cap=True, length="l1-max"),
    # The control to E1: the same budgets at inference; in training one hard cap of t* + s* and no forced end.
    Method("capped", "control: trained under one hard cap", Budget, reads=_CUTS),
    # arXiv 2505.05315: separate budgeting of a model trained under one (t*, s*).
    Method("e1", "E1: trained under budgets", Budget, reads=_CUTS),
    Method("e1_random", "E1, budgets drawn at random", Budget, reads=_CUTS),
    # arXiv 2508.08940: the budgets of the training shrink from large to small.
    Method("e1_curriculum", "E1, budgets on a schedule", Budget, reads=_CUTS),
    # arXiv 2510.15110: trained under plain truncation, so a budget truncates at inference too. The paper
    # compares lengths that the model chooses itself: that is the row without a budget.
    Method("dler", "DLER: trained under truncation", _cut_hard, one_cap=True),
    # arXiv 2505.13438: one thought, answered from at every budget.
    Method("anytime", "anytime: cuts of one thought", Budget, reads=("closing",), one_thought=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got '{name}'")
    return METHODS[name]


def check_options(methods: Sequence[Method], options: PolicyOptions) -> None:
    """Refuses options that none of the methods reads.

    Raises:
        ValueError: naming the option and the methods that would read it.
    """
    for name in options.given:
        if not any(name in method.reads for method in methods):
            readers = ", ".join(method.name for method in METHODS.values() if name in method.reads)
            chosen = ", ".join(method.name for method in methods)
            raise ValueError(f"{name}: has no effect on {chosen}; it is read by {readers}")
    for name in ("min_thinking", "extension"):
        if name in options.given and not options.max_extensions:
            raise ValueError(f"{name}: has no effect without max_extensions")


def budget_pairs(text: str) -> list[BudgetPair]:
    """Budgets from their notation: ``512:1024,0:512,512:-,none``.

    Each is ``thinking:solution``; ``-`` or ``none`` for one of them is no limit, ``none`` alone no budget.

    Raises:
        ValueError: something else, or a budget twice.
    """
    pairs: list[BudgetPair] = []
    for word in text.split(","):
        parts = ["none", "none"] if word.strip() == "none" else [part.strip() for part in word.split(":")]
        if len(parts) != 2:
            raise ValueError(f"budgets: expected THINKING:SOLUTION or none, got '{word.strip()}'")
        thinking, solution = (_tokens(part, word) for part in parts)
        if (thinking, solution) in pairs:
            raise ValueError(f"budgets: '{word.strip()}' is there twice")
        pairs.append((thinking, solution))
    return pairs


def _tokens(part: str, word: str) -> int | None:
    if part in ("-", "none"):
        return None
    if not part.isdecimal():
        raise ValueError(f"budgets: expected a number of tokens, '-' or 'none', got '{part}' in '{word}'")
    return int(part)
