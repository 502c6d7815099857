"""Thread counts from the work of a pass."""

import pytest
import torch

from elastic.models import threads
from elastic.models.threads import available_cores, recommended_threads, threads_for


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight cores without any OpenMP settings."""
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    return monkeypatch


def test_small_model_gets_one_thread_while_waiting_threads_spin(machine):
    model = torch.nn.Linear(800, 800)
    assert recommended_threads(model, 10_000) == 1


@pytest.mark.parametrize(("tokens", "expected"), [(1, 1), (64, 1), (1_000, 1), (2_000, 2), (100_000, 8)])
def test_threads_follow_the_work_of_a_pass(machine, tokens, expected):
    machine.setenv("OMP_WAIT_POLICY", "PASSIVE")
    model = torch.nn.Linear(800, 800, bias=False)  # 640,000 parameters
    assert recommended_threads(model, tokens) == expected


def test_large_model_gets_more_threads_in_any_case(machine):
    model = torch.nn.Linear(3000, 3000, bias=False)  # 9 million parameters
    assert recommended_threads(model, 64) == 1
    assert recommended_threads(model, 400) == 7


def test_model_elsewhere_needs_one_thread(machine):
    assert recommended_threads(torch.nn.Linear(10_000, 10_000, device="meta"), 10_000) == 1


def test_the_users_setting_has_the_last_word(machine):
    machine.setenv("OMP_NUM_THREADS", "3")
    assert recommended_threads(torch.nn.Linear(2, 2)) == 3
    machine.setenv("OMP_NUM_THREADS", "0")
    assert recommended_threads(torch.nn.Linear(2, 2)) == 1


def test_block_restores_the_former_count_also_after_an_error(machine):
    machine.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    inside = []

    def fail():
        with threads_for(torch.nn.Linear(2, 2)) as count:
            inside.append((count, torch.get_num_threads()))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(2, 2)]
    assert torch.get_num_threads() == before


def test_there_is_a_core():
    assert available_cores() >= 1
