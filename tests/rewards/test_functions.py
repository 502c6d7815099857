"""Reward functions by import path, and what their parameters ask for."""

from functools import partial

import pytest

from elastic.rewards import math_reward
from elastic.rewards.functions import Asked, asked_by, load_function, name_of
from elastic.rewards.pool import PooledReward

FILE = """
import json
runs = []
runs.append(1)

def brevity(sample):
    return -len(sample.completion)

class Scorer:
    def __call__(self, completions, **kwargs):
        return [0.0] * len(completions)

scorer = Scorer()
number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(FILE)
    return str(path)


def test_a_function_is_found_in_a_file_and_in_a_package(file):
    assert load_function(f"{file}:brevity").__name__ == "brevity"
    assert load_function("elastic.rewards:math_reward") is math_reward
    assert load_function("json:decoder.JSONDecodeError.mro")  # dotted names within the module


def test_a_file_is_run_once_for_all_of_its_functions(file):
    first, second = load_function(f"{file}:brevity"), load_function(f"{file}:scorer")
    assert first.__globals__ is type(second).__call__.__globals__
    assert first.__globals__["runs"] == [1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{file}:brevty", r"has no 'brevty'; did you mean brevity\?"),
        ("{file}:Scorer", "expected a function, got <class"),
        ("{file}:number", "expected a function, got 3"),
        ("nowhere.py:f", "nowhere.py cannot be imported: FileNotFoundError"),
        ("no_such_package.rewards:f", "no_such_package.rewards cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_found_is_named(file, path, said):
    with pytest.raises(ValueError, match=said):
        load_function(path.format(file=file))


def test_an_error_in_the_file_is_said_again_when_it_is_asked_for_again(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"broken.py cannot be imported: ZeroDivisionError"):
            load_function(f"{path}:f")


async def _async_sample(sample): ...
async def _async_lists(completions, ground_truth): ...


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (lambda sample: 0, Asked("sample")),
        (lambda sample, scale=2: 0, Asked("sample")),
        (lambda completions, **rest: 0, Asked("batch", ("completions",), everything=True)),
        (
            lambda prompts, completion_ids, level, log_extra=None: 0,
            Asked("batch", ("prompts", "completion_ids"), ("level",), ("log_extra",)),
        ),
        (lambda answer, **rest: 0, Asked("batch", columns=("answer",), everything=True)),
        (math_reward, Asked("response")),
        (PooledReward(math_reward), Asked("response")),
        (partial(math_reward, boxes="all"), Asked("response")),
        (lambda *_: 0, Asked("response")),
        (_async_sample, Asked("sample", is_async=True)),
        (partial(_async_lists), Asked("batch", ("completions",), ("ground_truth",), is_async=True)),
    ],
)
def test_parameters_say_how_a_function_is_called(function, asked):
    assert asked_by(function, "f") == asked


async def _async_response(response, reference): ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 0, r"'f': expected a function of sample, .*, got the parameters none"),
        (lambda a, b, c: 0, "got the parameters a, b, c"),
        (lambda sample, level: 0, "asks for sample, which has everything, and for level too"),
        (_async_response, "an async function asks for sample, or for some of prompts"),
    ],
)
def test_parameters_that_say_nothing_are_refused(function, said):
    with pytest.raises(ValueError, match=said):
        asked_by(function, "f")


def test_functions_are_called_by_their_names():
    assert name_of(math_reward) == name_of(partial(partial(math_reward))) == "math_reward"
    assert name_of(type("Scorer", (), {"__call__": lambda self, sample: 0})()) == "Scorer"
