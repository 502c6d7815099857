"""vLLM's V2 runner as far as a logits processor sees it: buffers, rows and the acceptance of draft tokens.

Rows, buffers and the order of calls are those of vLLM 0.32.0; `test_v2_engine.py` runs the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from elastic import ops
from elastic.budget import Budget, Markers, Phase
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.table import BudgetTables
from elastic.integrations.vllm.v2 import V2Budgets
from tests.rollout.small_models import VOCAB, make_tokenizer

TOKENIZER = make_tokenizer()
MARKERS = Markers.from_tokenizer(TOKENIZER)
EOS, START, END = 1, 2, 3
SLOTS, LONGEST = 4, 128
THINKING = [7, START]
ANSWERING = [7, START, END]


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def logits_after(tokens: Sequence[int]) -> torch.Tensor:
    """[VOCAB] float32, what the model makes of a history: neither flat nor a single token."""
    generator = torch.Generator().manual_seed(31 * tokens[-1] + 7 * len(tokens))
    logits = torch.randn(VOCAB, generator=generator) * 2
    logits[[EOS, END]] += 1.0
    return logits


def params(asked: RequestBudget | Budget | None, seed: int | None = 0, temperature: float = 1.0) -> Any:
    """Sampling parameters, and the budget that is found in them."""
    if isinstance(asked, Budget):
        asked = RequestBudget(asked)
    return SimpleNamespace(seed=seed, temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, asked=asked)


class Settings:
    """Of a server, as far as budgets of requests read them."""

    eos_ids, context_tokens, rows, tokenizer = (EOS,), LONGEST, SLOTS, TOKENIZER

    def __init__(self, drafts: int = 0, v2: bool = True, grammar_behind_thought: bool = False):
        self.drafts, self.v2, self.grammar_behind_thought = drafts, v2, grammar_behind_thought

    def request(self, sampling: Any) -> RequestBudget | None:
        return sampling.asked

    def markers(self, ends: tuple[str, ...]) -> Markers:
        return Markers.from_tokenizer(TOKENIZER, ends=ends) if ends else MARKERS

    def seed(self, sampling: Any) -> int:
        return sampling.seed

    def tables(self, rows: int, device: torch.device | str = "cpu") -> BudgetTables:
        return BudgetTables(TOKENIZER, (EOS,), EOS, rows, device)


def _buffer(*size: int) -> Any:
    tensor = torch.zeros(*size, dtype=torch.int32)
    return SimpleNamespace(gpu=tensor, np=tensor.numpy())


class Runner:
    """Requests in slots.

    Args:
        drafts: most draft tokens of a request in a step.
        model: a history's logits.

    Attributes:
        budgets: the processor's half under test.
        slots: request name -> slot.
        outputs: request name -> its tokens behind the prompt.
    """

    def __init__(self, drafts: int = 3, model: Callable[[Sequence[int]], torch.Tensor] = logits_after):
        self.buffers = SimpleNamespace(
            device=torch.device("cpu"),
            max_num_reqs=SLOTS,
            vocab_size=VOCAB,
            all_token_ids=_buffer(SLOTS, LONGEST),
            prompt_len=_buffer(SLOTS),
            prefill_len=_buffer(SLOTS),
            total_len=_buffer(SLOTS),
        )
        self.budgets = V2Budgets(Settings(drafts), self.buffers)  # type: ignore[arg-type]
        self.slots: dict[str, int] = {}
        self.outputs: dict[str, list[int]] = {}
        self._prompts: dict[str, list[int]] = {}
        self._params: dict[str, Any] = {}
        self._free = list(range(SLOTS))
        self._model = model

    def add(self, name: str, sampling: Any, prompt: Sequence[int], output: Sequence[int] = ()) -> None:
        """A request takes the slot that was left last."""
        slot = self.slots[name] = self._free.pop()
        self._prompts[name], self._params[name], self.outputs[name] = list(prompt), sampling, list(output)
        tokens = [*prompt, *output]
        self.buffers.prompt_len.np[slot], self.buffers.prefill_len.np[slot] = len(prompt), len(tokens)
        self.budgets.add_request(slot, sampling)
        # vLLM writes the rest behind all calls of `add_request`; nothing that is called reads it earlier.
        self.buffers.all_token_ids.np[slot, : len(tokens)] = tokens
        self.buffers.total_len.np[slot] = len(tokens)

    def leave(self, name: str) -> None:
        """A request ends, or is preempted."""
        self._free.append(self.slots.pop(name))

    def back(self, name: str) -> None:
        """A preempted request takes a slot again."""
        self.add(name, self._params[name], self._prompts[name], self.outputs[name])

    def step(
        self,
        names: Sequence[str],
        drafts: Mapping[str, Sequence[int]] | None = None,
        unfinished: Sequence[str] = (),
    ) -> torch.Tensor:
        """A step of some requests, in this order.

        Args:
            names: the requests.
            drafts: draft tokens; -1 is a placeholder.
            unfinished: requests whose prompt is not read to its end yet: what they draw is thrown away.

        Returns:
            The logits that the processor left, a row each.
        """
        drafts = drafts or {}
        self.budgets.apply_staged_writes()
        rows = _rows(names, drafts)
        logits = torch.stack(
            [self._model([*self._history(name), *drafts.get(name, ())[:i]]) for name, i in rows]
        )
        logits = self.budgets.apply(logits, self.context(names, drafts))
        chosen = {row: int(logits[i].argmax()) for i, row in enumerate(rows)}
        for name in names:
            if name not in unfinished:
                self._take_over(name, chosen, drafts.get(name, ()))
        return logits

    def context(self, names: Sequence[str], drafts: Mapping[str, Sequence[int]]) -> Any:
        """vLLM's `LogitsContext` of a step."""
        rows, slots = _rows(names, drafts), [self.slots[name] for name in names]
        fed = {name: [self._history(name)[-1], *drafts.get(name, ())] for name in names}
        return SimpleNamespace(
            expanded_idx_mapping=torch.tensor([self.slots[name] for name, _ in rows], dtype=torch.int32),
            idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping_np=np.array(slots, dtype=np.int32),
            expanded_local_pos=torch.tensor([i for _, i in rows], dtype=torch.int32),
            input_ids=torch.tensor([fed[name][i] for name, i in rows], dtype=torch.int32),
            pos=torch.tensor([len(self._history(name)) - 1 + i for name, i in rows]),
            seq_lens_upper_bound_np=np.array([len(self._history(name)) for name in names]),
        )

    def _history(self, name: str) -> list[int]:
        return self._prompts[name] + self.outputs[name]

    def _take_over(self, name: str, chosen: Mapping[tuple[str, int], int], drafts: Sequence[int]) -> None:
        """Draft tokens as far as they are what the rows chose, and one token behind them."""
        taken = []
        for i in range(len(drafts) + 1):
            taken.append(chosen[name, i])
            if i == len(drafts) or drafts[i] != taken[-1]:
                break
        slot, length = self.slots[name], len(self._history(name))
        self.outputs[name] += taken
        self.buffers.all_token_ids.np[slot, length : length + len(taken)] = taken
        self.buffers.total_len.np[slot] = length + len(taken)


def _rows(names: Sequence[str], drafts: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
    """The rows of a step: a request, and how many of its draft tokens a row has read."""
    return [(name, i) for name in names for i in range(len(drafts.get(name, ())) + 1)]


def plain(
    sampling: Any,
    prompt: Sequence[int],
    tokens: int,
    model: Callable[[Sequence[int]], torch.Tensor] = logits_after,
) -> list[int]:
    """The first tokens of a row, one at a time, and EOS behind its end."""
    asked = sampling.asked
    markers = Settings().markers(asked.end_markers)
    machine = asked.budget.compile(markers, TOKENIZER, (EOS,))
    phase = Phase(asked.start(markers, prompt))
    state = ops.new_state(1, machine, phase=[phase], thinking_used=asked.thinking_used)
    row: list[int] = []
    for position in range(tokens):
        if ops.is_done(state).item():
            row += [EOS] * (tokens - position)
            break
        out = ops.sample(
            model([*prompt, *row])[None],
            torch.tensor([sampling.seed]),
            torch.tensor([position]),
            *(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p),
            state=state,
            machine=machine,
        )
        row.append(int(out.tokens))
    return row
