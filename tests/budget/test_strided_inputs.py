"""What ops only read may have any strides, wherever the machine and the indices lie."""

import pytest
import torch

from elastic import Budget, Markers, Phase, ops
from elastic.budget.machine import Machine, compile_budgets

X, START, END = 6, 2, 3


@pytest.fixture
def machine() -> Machine:
    budgets = [Budget(3, 4), Budget(0, 2), Budget(1, 1)]
    return compile_budgets(budgets, Markers((START,), (END,)), None, [0], 1)[0]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same values with others between them."""
    return torch.stack([tensor, tensor + 1], dim=-1)[..., 0]


class Elsewhere(torch.Tensor):
    """Tables that say they lie on another device, as those of a machine on a GPU do."""

    @property
    def device(self):
        return torch.device("meta")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


@pytest.fixture
def made(monkeypatch) -> list[torch.Tensor]:
    """States as the op made them, before they were copied to the machine's device."""
    states, op = [], torch.ops.elastic.new_state

    def new_state(*arguments):
        states.append(op(*arguments))
        return states[-1]

    monkeypatch.setattr(torch.ops.elastic, "new_state", new_state)
    return states


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("kind", ["expanded", "strided"])
def test_states_are_made_from_host_indices_of_any_strides(machine, made, elsewhere, kind):
    phases = torch.tensor([int(Phase.THINKING), int(Phase.SOLUTION)], dtype=torch.int32)
    index = torch.tensor([2]).expand(2) if kind == "expanded" else strided(torch.tensor([2, 0]))
    phase = phases[1:].expand(2) if kind == "expanded" else strided(phases)
    there = machine
    if elsewhere:
        there = Machine(**{**vars(machine), "tables": machine.tables.as_subclass(Elsewhere)})
    state = ops.new_state(index, there, phase=phase)
    assert state.device.type == ("meta" if elsewhere else "cpu")
    expected = [([2, 2], phases[[1, 1]]), ([2, 0], phases)][kind == "strided"]
    assert made[0][:, 0].tolist() == expected[0]
    assert torch.equal(ops.state_phase(made[0]), expected[1])


def test_an_illegal_host_index_is_refused_before_anything_goes_to_the_machines_device(machine):
    there = Machine(**{**vars(machine), "tables": machine.tables.as_subclass(Elsewhere)})
    with pytest.raises(ValueError, match=r"new_state: rows: expected .* got 3"):
        ops.new_state(torch.tensor([3]).expand(4), there)


@pytest.mark.usefixtures("kernels")
def test_replay_and_forced_logits_read_any_strides(machine):
    tokens, lengths = torch.tensor([[X, X, END, X], [X, END, 0, 1]]), torch.tensor([4, 3])
    source = torch.zeros(2, 4, dtype=torch.uint8)
    state = ops.new_state(torch.tensor([0, 2]), machine)
    plain = ops.replay(tokens, lengths, state, machine, source=source)
    sliced = ops.replay(strided(tokens), strided(lengths), strided(state), machine, source=strided(source))
    for one, other in zip(plain, sliced, strict=True):
        assert torch.equal(one, other)
    same = ops.replay(tokens[:1].expand(3, 4), lengths[:1].expand(3), state[:1].expand(3, 8), machine)
    assert torch.equal(same[0], plain[0][:1].expand(3, 4))
    ended = torch.tensor([2, -1])
    plain = ops.replay(tokens, lengths, state, machine, ended=ended)
    sliced = ops.replay(tokens, lengths, state, machine, ended=strided(ended))
    assert torch.equal(plain[2], sliced[2])
    used = torch.tensor([2, 1])
    started = ops.new_state([0, 2], machine, thinking_used=strided(used))
    assert torch.equal(started, ops.new_state([0, 2], machine, thinking_used=used))
    rest = started.clone()
    ops.end_thinking_(started, strided(torch.tensor([1, 0])))
    ops.end_thinking_(rest, torch.tensor([True]).expand(2))
    assert torch.equal(started, rest)
    forced = ops.new_state(torch.tensor([1, 0]), machine)
    logits = torch.zeros(2, 9)
    ops.force_logits_(logits, strided(forced), machine)
    assert logits[0].isneginf().sum() == 8
    assert logits[0, END] == 0
    assert not logits[1].any()
