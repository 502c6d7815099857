"""Weighted reward functions over a batch: what they see and may give, what is said of their faults."""

import asyncio
import math
import re
import threading
from dataclasses import replace

import pytest
import torch
from trl.rewards import accuracy_reward, get_soft_overlong_punishment

from elastic.models import tiny
from elastic.rewards.combined import Rewards
from elastic.rewards.length import soft_overlong
from tests.rewards.written import PROBLEMS, TEXTS, written_batch

NAN = math.nan


@pytest.fixture(scope="module")
def batch():
    return written_batch()


def parts(batch, *functions, **options):
    named = {f"f{index}": function for index, function in enumerate(functions)}
    return Rewards(named, **options).grade(batch, PROBLEMS).parts.T.tolist()


def same(found, expected):
    return torch.equal(torch.tensor(found).nan_to_num(-99), torch.tensor(expected).nan_to_num(-99))


def test_a_sample_has_texts_tokens_facts_problem_and_group(batch):
    seen = []
    Rewards({"f": lambda sample: seen.append(sample) or 0.0}).grade(batch, PROBLEMS)
    first, second, third, cut = seen
    assert first.prompt == PROBLEMS[0].prompt
    assert first.completion == "so </think> answer is 2"
    assert (first.thinking.strip(), first.solution.strip()) == ("so", "answer is 2")
    assert first.completion_ids == batch.tokenizer.encode(TEXTS[0], add_special_tokens=False)
    assert (second.thinking_tokens, second.solution_tokens) == (5, 4)  # EOS is one that the model wrote
    assert [s.finish_reason for s in seen[:3]] == ["stop"] * 3
    assert (third.problem, third.answer, third.columns["level"]) == (PROBLEMS[1], "3", 5)
    assert (cut.answered, cut.solution, cut.thinking_cut, cut.solution_cut) == (False, None, True, False)
    assert first.group == [first, second] == second.group
    assert [s.row for s in cut.group] == [2, 3]


def test_lists_have_one_entry_a_row_and_columns_are_repeated_within_a_group(batch):
    seen = {}

    def lists(prompts, completions, completion_ids, level, answer, absent=7):
        seen.update(locals())
        return [1.0] * 4

    parts(batch, lists)
    assert seen["prompts"] == [PROBLEMS[row // 2].prompt for row in range(4)]
    assert [text.split() for text in seen["completions"]] == [t.removesuffix(" <eos>").split() for t in TEXTS]
    assert [len(ids) for ids in seen["completion_ids"]] == [len(text.split()) for text in TEXTS]
    assert (seen["level"], seen["answer"], seen["absent"]) == ([1, 1, 5, 5], ["2", "2", "3", "3"], 7)


def test_a_function_gets_what_it_asks_for_and_with_kwargs_everything(batch):
    seen = []

    def some(samples):
        return [0.0] * 4

    def everything(completions, **rest):
        seen.append(set(rest))
        return [0.0] * 4

    parts(batch, some, everything)
    assert seen == [{"prompts", "completion_ids", "samples", "answer", "level", "ground_truth"}]


def test_the_reward_is_the_weighted_sum_of_what_was_given(batch):
    rewards = Rewards(
        {
            "right": tiny.reward,
            "some": lambda sample: None if sample.row == 0 else 2.0,
            "none": lambda completions: [None, 3, None, None],
        },
        [1.0, 0.5, -1.0],
        "right",
    )
    graded = rewards.grade(batch, PROBLEMS)
    assert same(graded.parts.tolist(), [[1.0, NAN, NAN], [0.0, 2.0, 3.0], [1.0, 2.0, NAN], [0.0, 2.0, NAN]])
    assert rewards.total(graded.parts).tolist() == [1.0, -2.0, 2.0, 1.0]
    assert graded.correct.tolist() == rewards.correctness(batch, PROBLEMS) == [1.0, 0.0, 1.0, 0.0]


def test_a_row_without_any_value_has_no_reward(batch):
    rewards = Rewards({"f": lambda sample: None if sample.row == 2 else 1.0, "g": lambda sample: None})
    assert same(rewards.total(rewards.grade(batch, PROBLEMS).parts).tolist(), [1.0, 1.0, NAN, 1.0])


def test_correctness_may_be_measured_without_being_rewarded(batch):
    rewards = Rewards({"one": lambda sample: 1.0}, correct="right", unpaid=tiny.reward)
    graded = rewards.grade(batch, PROBLEMS)
    assert graded.parts.tolist() == [[1.0]] * 4
    assert graded.correct.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert rewards.paid is None


def test_all_calls_of_async_functions_are_under_way_at_once(batch):
    """Each waits until all others have begun: one after the other, none would ever end."""
    begun, everyone = [], asyncio.Event()

    async def meet(name):
        begun.append(name)
        if len(begun) == 4 + 1 + 4:
            everyone.set()
        await everyone.wait()

    async def judge(sample):
        await meet(f"judge {sample.row}")
        return float(sample.row)

    async def critic(sample):
        await meet(f"critic {sample.row}")
        return None

    async def panel(completions):
        await meet("panel")
        return [5.0] * len(completions)

    found = parts(batch, judge, panel, critic, timeout_s=30)
    assert same(found, [[0.0, 1.0, 2.0, 3.0], [5.0] * 4, [NAN] * 4])


def test_async_functions_keep_their_loop_from_batch_to_batch_also_below_a_running_loop(batch):
    loops = []

    async def judge(sample):
        loops.append(asyncio.get_running_loop())
        return 1.0

    rewards = Rewards({"judge": judge})
    rewards.grade(batch, PROBLEMS)

    async def notebook():
        return rewards.grade(batch, PROBLEMS).parts

    assert asyncio.run(notebook()).tolist() == [[1.0]] * 4
    assert len(set(map(id, loops))) == 1


def test_an_async_call_beyond_its_time_is_named(batch):
    async def slow(sample):
        if sample.row == 2:
            await asyncio.sleep(60)
        return 1.0

    said = r"reward function 'f0', row 2 \(problem 'three'\): TimeoutError\(\) \(reward.async_timeout_s is"
    with pytest.raises(RuntimeError, match=said):
        parts(batch, slow, timeout_s=0.01)


def test_a_failure_ends_what_other_async_functions_are_waiting_for(batch):
    ended = threading.Event()

    async def broken(sample):
        await asyncio.sleep(0)
        raise KeyError("gone")

    async def waiting(completions):
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(RuntimeError, match="reward function 'f1'"):
        parts(batch, waiting, broken)
    assert ended.wait(10)


async def _failing(sample):
    raise KeyError("gone") if sample.row == 1 else ValueError("other")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda sample: {}["gone"] if sample.row == 1 else 1, r"row 1 \(problem 'two'\): KeyError\('gone'\)"),
        (lambda completions: {}["gone"], r"a batch of 4 rows: KeyError\('gone'\)"),
        (_failing, r"row \d \(problem 'two'\): (KeyError\('gone'\)|ValueError\('other'\))"),
    ],
)
def test_a_function_that_fails_is_named_with_its_row_and_problem(batch, function, said):
    with pytest.raises(RuntimeError, match=f"reward function 'f0', {said}") as caught:
        parts(batch, function)
    assert isinstance(caught.value.__cause__, KeyError | ValueError)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0] * 3, "gave 3 values for 4 rows"),
        ([1.0] * 5, "gave 5 values for 4 rows"),
        (0.5, "expected a list of 4 numbers, got 0.5"),
        (None, "expected a list of 4 numbers, got None"),
        ({"score": 1.0}, "expected a list of 4 numbers, got {'score': 1.0}"),
        ([1.0, NAN, 1.0, 1.0], r"row 1 \(problem 'two'\) got nan, expected a finite number or None"),
        ([1.0, 1.0, 1.0, -math.inf], r"row 3 \(problem 'three'\) got -inf"),
        ([1.0, 1.0, "1.0", 1.0], r"row 2 \(problem 'three'\) got '1.0'"),
        ([1.0, 1.0, {"score": 1.0}, 1.0], r"row 2 \(problem 'three'\) got {'score': 1.0}"),
    ],
)
def test_what_is_no_reward_is_named(batch, given, said):
    with pytest.raises(ValueError, match=f"reward function 'f0': {said}"):
        parts(batch, lambda completions: given)


def test_tensors_arrays_and_truths_are_numbers(batch):
    found = parts(batch, lambda completions: torch.tensor([0.5, 1, 2, 3]), lambda sample: sample.row > 1)
    assert found == [[0.5, 1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 1.0]]


class Boxing:
    """A tokenizer whose answers stand in boxes, where TRL's function looks for them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def decode(self, ids, **options):
        return re.sub(r"answer is (\d)", r"\\boxed{\1}", self.tokenizer.decode(ids, **options))


def test_functions_written_for_trl_run_unchanged(batch):
    """TRL 1.16's own ones; chats as its conversational data has them."""
    right = Rewards({"accuracy_reward": accuracy_reward}, messages=True)
    boxed = replace(batch, tokenizer=Boxing(batch.tokenizer))
    for solutions, expected in ((["$2$", "$3$"], [1.0, 1.0]), (["$2$", "$7$"], [1.0, 0.0])):
        problems = [replace(p, columns={"solution": s}) for p, s in zip(PROBLEMS, solutions, strict=True)]
        assert right.grade(boxed, problems).parts[::2, 0].tolist() == expected
    punished = parts(batch, get_soft_overlong_punishment(max_completion_len=9, soft_punish_cache=4))[0]
    assert punished == [-0.25, -1.0, -0.25, -0.25] == [soft_overlong(n, 9, 4) for n in (6, 9, 6, 6)]


def test_chats_have_the_question_as_the_data_has_it(batch):
    seen = {}

    def lists(prompts, completions):
        seen.update(prompts=prompts, completions=completions)
        return [0.0] * 4

    parts(batch, lists, messages=True)
    assert seen["prompts"][0] == [{"role": "user", "content": PROBLEMS[0].prompt}]
    assert seen["completions"][0] == [{"role": "assistant", "content": "so </think> answer is 2"}]


def test_a_column_that_no_problem_has_is_refused_by_its_function(batch):
    rewards = Rewards({"f": lambda completions, difficulty: [0.0] * 4})
    said = (
        r"reward function 'f' asks for 'difficulty', but problem 'two' of data.source has no such column; it"
    )
    with pytest.raises(ValueError, match=said):
        rewards.check_columns("data", PROBLEMS)
    rewards.check_columns("eval", PROBLEMS, evaluation=True)  # nothing is graded there by `f`


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"functions": {}}, "reward: expected at least one function"),
        ({"weights": [1.0, 2.0]}, "reward.weights: expected 1, got 2"),
        ({"correct": "g"}, "reward.name: no function is called 'g': f"),
    ],
)
def test_rewards_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Rewards(**{"functions": {"f": lambda sample: 1.0}} | options)


@pytest.mark.parametrize(("used", "punishment"), [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (130, -1.0)])
def test_overlong_rows_are_punished_over_the_last_tokens(used, punishment):
    assert soft_overlong(used, 100, 20) == punishment


@pytest.mark.parametrize("cache", [0, 101])
def test_an_overlong_cache_outside_the_row_is_refused(cache):
    with pytest.raises(ValueError, match=rf"cache_tokens must be in \[1, max_tokens = 100\], got {cache}"):
        soft_overlong(5, 100, cache)
