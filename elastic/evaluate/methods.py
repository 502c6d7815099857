"""The methods that are compared: what each makes of a thinking budget t and a solution budget s.

A method is a policy at inference: a `Budget`, and for L1 an instruction in the question. The caller chooses
the model: vanilla, s1 and separate budgeting run on any; L1, E1 and E1's control on one trained for them.

Source: SPEC section 6; the papers are named at each entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

from elastic.budget import Budget
from elastic.rewards.length import Ask, ask_in_words, user_message


@dataclass(frozen=True)
class Method:
    """One policy.

    Attributes:
        name: its key in `METHODS`, and in rows and files.
        label: for legends.
        limit: a function from (t, s), neither None, to the budget of the rows.
        one_cap: whether t and s only matter through their sum.
        length: how the question asks for t + s tokens, see `elastic.rewards.length`; `none`: it does not.
    """

    name: str
    label: str
    limit: Callable[[int, int], Budget]
    one_cap: bool = False
    length: str = "none"

    def budget(self, thinking: int | None, solution: int | None) -> Budget:
        """The budget of the rows; unlimited where both are None.

        Raises:
            ValueError: only one of the two is None, or one is out of range.
        """
        if (thinking is None) != (solution is None):
            raise ValueError(
                f"{self.name}: give thinking and solution, or neither, got {thinking} and {solution}"
            )
        if thinking is None or solution is None:
            return Budget.unlimited()
        Budget(thinking, solution)  # the range check, for every method alike
        return self.limit(thinking, solution)

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
        total = None if thinking is None or solution is None else thinking + solution
        return user_message(text, suffix=suffix, length=self.length, target_tokens=total, ask=ask)


def _separate(thinking: int, solution: int) -> Budget:
    return Budget(thinking, solution)


def _unlimited(thinking: int, solution: int) -> Budget:
    return Budget.unlimited()


_TABLE = (
    Method("vanilla", "vanilla: one cap, cut hard", lambda t, s: Budget.vanilla(t + s), one_cap=True),
    # arXiv 2501.19393: thinking is cut with "Final Answer:". s1's "Wait" needs a minimum of thinking, which a
    # sweep over caps has not; `Budget.s1(..., max_extensions=...)` has it.
    Method("s1", "s1: budget forcing", Budget.s1),
    Method("separate", "separate budgeting, untrained", _separate),
    # arXiv 2503.04697: the model is told and nothing is enforced; N counts the whole response.
    Method("l1_exact", "L1-Exact", _unlimited, one_cap=True, length="l1-exact"),
    Method("l1_max", "L1-Max", _unlimited, one_cap=True, length="l1-max"),
    # The control to E1: the same budgets at inference; in training one hard cap of t* + s* and no forced end.
    Method("capped", "control: trained under one hard cap", _separate),
    # arXiv 2505.05315: separate budgeting of a model trained under one (t*, s*).
    Method("e1", "E1: trained under budgets", _separate),
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
