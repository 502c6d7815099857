"""Shared by the budget tests: tokenizers made of a list, and runs of the ops."""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import torch

from elastic import ops
from elastic.budget import Budget, Phase, token_text
from elastic.budget.machine import Machine, compile_budgets
from elastic.budget.markers import Markers

EOS, PAD = 0, 99


class ListTokenizer:
    """Token i reads texts[i]: what the machine asks of a tokenizer, and nothing more."""

    all_special_ids: tuple[int, ...] = ()
    unk_token_id = None
    eos_token_id = None
    pad_token_id = None

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def batch_decode(self, batch, **_):
        return ["".join(self.texts[i] for i in ids) for ids in batch]

    def convert_ids_to_tokens(self, ids):
        return [self.texts[i] for i in ids]


# 12 begins a character of four bytes, 13 one of two, 14 and 15 are one and two bytes that go on with one.
BYTES = {12: b"\xf0", 13: b"a\xc3", 14: b"\xa9", 15: b"\x9f\x98"}
CODES = {12: 3, 13: 1, 14: 5, 15: 6}
VOCAB = 16


class CharacterTokenizer(ListTokenizer):
    """One whose token texts and bytes are those of the cases."""

    def __init__(self, blank: set[int]) -> None:
        super().__init__([" " if i in blank else f"t{i}" for i in range(VOCAB)])
        self.codes = [CODES.get(i, 0) for i in range(VOCAB)]


def machine_for(budget: Budget, markers: Markers, tokenizer=None, eos=(EOS,)) -> Machine:
    return compiled([budget], markers, tokenizer, eos)[0]


def compiled(budgets, markers: Markers, tokenizer=None, eos=(EOS,)) -> tuple[Machine, torch.Tensor]:
    """`compile_budgets`; a tokenizer of these tests says itself what its tokens leave of a character."""
    real = token_text.character_codes

    def codes(tokenizer):
        return tokenizer.codes if hasattr(tokenizer, "codes") else real(tokenizer)

    with mock.patch.object(token_text, "character_codes", codes):
        return compile_budgets(budgets, markers, tokenizer, eos, PAD)


@dataclass
class Run:
    """One row driven by a stream of sampled tokens until it is done or the stream ends."""

    tokens: list[int]
    source: list[int]
    phase: list[int]
    states: list[torch.Tensor]  # before the first token and behind each

    @property
    def state(self) -> torch.Tensor:
        return self.states[-1]

    @property
    def finish(self) -> int:
        return int(ops.finish_reason(self.state))

    @property
    def thinking(self) -> int:
        return int(ops.thinking_used(self.state))

    @property
    def solution(self) -> int:
        return int(ops.solution_used(self.state))

    @property
    def cut(self) -> bool:
        return bool(ops.thinking_cut(self.state))


def run(machine: Machine, stream, start: Phase = Phase.THINKING, impl=ops, state=None, ended_at=None) -> Run:
    """`ended_at`: thinking is ended from outside behind so many tokens."""
    if state is None:
        state = ops.new_state(1, machine, phase=torch.tensor([int(start)], dtype=torch.int32))
    out = Run([], [], [], [])
    for token in [*stream, None]:
        if ended_at == len(out.tokens):
            impl.end_thinking_(state, torch.tensor([0]))
        out.states.append(state.clone())
        if token is None or bool(ops.is_done(state)):
            break
        tokens = torch.tensor([token])
        source = impl.budget_step_(tokens, state, machine)
        out.tokens.append(int(tokens))
        out.source.append(int(source))
        out.phase.append(int(ops.last_phase(state)))
    return out
