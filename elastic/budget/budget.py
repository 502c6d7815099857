"""Budgets: how many tokens a row may think, how many it may answer with, and what happens at the limits."""

from __future__ import annotations

from typing import Any

from elastic.budget.eos import EosIds
from elastic.budget.kinds import Phase
from elastic.budget.machine import Machine, compile_budgets, max_tokens
from elastic.budget.markers import Markers
from elastic.budget.values import BudgetValues


class Budget(BudgetValues):
    """Token budgets of one row. Texts may be strings, or token ids where no tokenizer is at hand.

    Attributes:
        thinking: most sampled thinking tokens (t), 0 allowed; None is unlimited.
        solution: most sampled solution tokens (s), at least 1, EOS included; None is unlimited. A row that
            opens its own thinking may spend them on the beginning of a start marker; the token that would
            overspend them is then replaced by the rest of the marker (R9).
        total: most sampled tokens of both phases (c). With `thinking=None` it cuts hard wherever the row is
            (the vanilla method, R14), and `solution` must be None, which is then its default.
        closing: F, what is forced when thinking is cut (R1): a key of `CLOSINGS`, or a text with the end
            marker (or `{end}`) exactly once. None is the bare end marker.
        on_eos: EOS while thinking: "close" replaces it with F, "stop" ends the row (R6).
        on_reopen: a start marker in the solution: "count" takes it as text, "forbid" masks the token that
            would complete it (R8; done by `force_logits_` and `sample`).
        on_reclose: an end marker in the solution behind a forced close, or another natural end that opens
            nothing: "count" takes it as text, "forbid" masks the token that would complete it (R20).
        min_thinking: an end marker or EOS before this many thinking tokens gives way to `extension` (R11), at
            most `max_extensions` times. One needs the other.
        notices: pairs (used thinking tokens, text), forced while thinking goes on (R12). A notice waits while
            an end marker is in progress and is dropped once the thinking budget is spent.
        grace: up to this many more thinking tokens until a boundary token is sampled (R13); the token that
            spends the budget may be that boundary already. `thinking=0` closes at once all the same (R9).
        boundary: strings that a boundary token's text ends in, or token ids; None with `grace` means newline
            and sentence ends.
        whole_characters: a cut that is due inside a character (UTF-8, of a byte-level or byte-fallback
            vocabulary) waits until it is whole: at most three more sampled tokens per row. They count, so a
            budget may be exceeded by them (R21). An EOS and a natural end do not wait.

    Raises:
        ValueError: at construction, naming the argument, its value and the limit (R14, R17). What depends on
            the markers or the tokenizer (R4, R11, R12, R13) is checked by `compile`.
    """

    @classmethod
    def unlimited(cls, **options: Any) -> Budget:
        """Both phases as long as the model likes; EOS while thinking still gets an answer (R6)."""
        return cls(None, None, **options)

    @classmethod
    def vanilla(cls, total: int, **options: Any) -> Budget:
        """The vanilla method: one cap, cut hard wherever the row is, EOS ends it in any phase."""
        return cls(None, None, total, **{"on_eos": "stop", **options})

    @classmethod
    def s1(cls, thinking: int | None, solution: int | None = None, **options: Any) -> Budget:
        """s1's budget forcing: a thinking cap, then "Final Answer:".

        With `max_extensions` an early stop is replaced by "Wait", up to the cap or, if given, `min_thinking`.
        """
        if options.get("max_extensions") and "min_thinking" not in options and thinking is not None:
            options["min_thinking"] = thinking
        return cls(thinking, solution, **{"closing": "s1", **options})

    def compile(self, markers: Markers, tokenizer: Any = None, eos_ids: EosIds = None) -> Machine:
        """The tables the ops read, for this one budget; see `elastic.budget.machine.compile_budgets`."""
        return compile_budgets([self], markers, tokenizer, eos_ids)[0]

    def max_tokens(
        self,
        markers: Markers,
        tokenizer: Any = None,
        *,
        starts_in_thinking: bool = True,
        phase: Phase | None = None,
        thinking_used: int = 0,
    ) -> int | None:
        """The most tokens a row can emit, t + s + |F| + |notices| and so on (R5); sizes a KV cache.

        Args:
            markers: the model's markers.
            tokenizer: needed for texts given as strings, unless the markers came from a tokenizer.
            starts_in_thinking: False adds the start marker and the white space a row may open with (R9).
            phase: OPENING, THINKING or SOLUTION, instead of `starts_in_thinking`.
            thinking_used: thinking tokens that count before the row's first one (R19).

        Returns:
            Tokens, or None where the budget has no bound.

        Raises:
            ValueError: a text does not work with these markers (R4, R11, R12).
        """
        if phase is None:
            phase = Phase.THINKING if starts_in_thinking else Phase.OPENING
        return max_tokens(self, markers, tokenizer, phase, thinking_used)

    def check_context(
        self,
        context_tokens: int,
        prompt_tokens: int,
        markers: Markers,
        tokenizer: Any = None,
        *,
        starts_in_thinking: bool = True,
        phase: Phase | None = None,
        thinking_used: int = 0,
    ) -> None:
        """Checks that a prompt and everything the budget allows fit into a model's context (R17).

        Raises:
            ValueError: naming the argument that does not fit, its value and the limit. An unlimited budget
                only needs room for one token: the engine's own length limit ends its rows.
        """
        if prompt_tokens >= context_tokens:
            raise ValueError(
                f"prompt: expected fewer tokens than the model's context of {context_tokens}, got "
                f"{prompt_tokens}"
            )
        for name in ("thinking", "solution", "total"):
            value = getattr(self, name)
            if value is not None and value > context_tokens:
                raise ValueError(
                    f"{name}: expected at most the model's context of {context_tokens}, got {value}"
                )
        most = self.max_tokens(
            *(markers, tokenizer),
            starts_in_thinking=starts_in_thinking,
            phase=phase,
            thinking_used=thinking_used,
        )
        if most is not None and prompt_tokens + most > context_tokens:
            raise ValueError(
                f"budget: a prompt of {prompt_tokens} tokens and at most {most} under {self} do not fit the "
                f"model's context of {context_tokens}"
            )
