"""How many slots of which length: fewest cells, and no more steps than in one pool."""

import random
import subprocess
import sys
from itertools import combinations

import pytest

from elastic.rollout.schedule import pools as pools_file
from elastic.rollout.schedule.needs import FIRST_COLUMNS, Needs
from elastic.rollout.schedule.pools import Pool, cells, class_of_rows, length_classes, most_slots
from elastic.rollout.schedule.schedule import Schedule


def of(most, prompt_tokens=0, bounded=True):
    return Needs.of([prompt_tokens] * len(most), most, [bounded] * len(most))


def steps_of(needs, pools, refill=1, ends=None):
    """That a schedule takes whose rows end after so many tokens each."""
    ends = ends or needs.tokens
    rows = len(needs.tokens)
    prompt = needs.columns[0] - needs.tokens[0]
    row_pool = class_of_rows(pools, needs)
    schedule = Schedule([0] * rows, [prompt], needs.tokens, needs, pools, row_pool, refill)
    while schedule.busy:
        slots = schedule.refill()
        if slots:
            schedule.admit(slots)
        elif schedule.sparse:
            schedule.compact()
        at = {s: schedule.start[s] + ends[schedule.row[s]] for s in range(schedule.used) if schedule.live[s]}
        schedule.step = min(at.values())  # nothing happens before the next row ends
        schedule.finish([s for s, end in at.items() if end == schedule.step])
    return schedule.step


def test_it_runs_where_there_is_no_torch():
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, pools_file.__file__], check=True)


@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (8, 8), (100, 8)])
def test_rows_of_one_length_are_in_one_pool(rows, slots):
    assert length_classes(of([90] * rows, prompt_tokens=10), slots) == [Pool(slots, 100)]


def test_a_few_long_rows_get_a_few_long_slots():
    assert length_classes(of([100, 1000, 100, 100]), 4) == [Pool(3, 100), Pool(1, 1000)]
    # The long row needs its slot for as long as 63 slots need for the others.
    assert length_classes(of([6300, *[100] * 4000]), 64) == [Pool(63, 100), Pool(1, 6300)]


def test_longer_rows_get_slots_by_their_share_of_all_tokens():
    # As many rows of 1000 tokens as of 250: 4/5 of the tokens are the long rows'.
    needs = of([1000] * 200 + [250] * 200)
    assert length_classes(needs, 5) == [Pool(1, 250), Pool(4, 1000)]
    assert steps_of(needs, length_classes(needs, 5)) == steps_of(needs, [Pool(5, 1000)]) == 50_000


def test_pools_that_would_take_more_steps_are_not_made():
    # By shares, 4 of 5 slots would be long: their 5 rows would take two rounds instead of one and a bit.
    needs = of([100] * 5 + [32] * 4)
    assert steps_of(needs, [Pool(1, 32), Pool(4, 100)]) == 200
    assert steps_of(needs, length_classes(needs, 5)) == steps_of(needs, [Pool(5, 100)]) == 132


def test_a_further_pool_saves_a_sixteenth_and_the_least_asked_for():
    needs = of([100, 100, 100, 100, 106, 106, 106, 106])
    assert length_classes(needs, 8) == [Pool(8, 106)]  # 24 of 848 cells
    # A third pool for the rows of 10 would save 360 of 7,000 cells.
    assert length_classes(of([10] * 4 + [100] * 2 + [1000]), 7) == [Pool(6, 100), Pool(1, 1000)]
    assert length_classes(of([10] * 6 + [100] * 2 + [700]), 9) == [Pool(6, 10), Pool(2, 100), Pool(1, 700)]
    needs = of([100, 100, 100, 100, 150, 150, 150, 150])
    assert length_classes(needs, 8, least_cells=199) == [Pool(4, 100), Pool(4, 150)]
    assert length_classes(needs, 8, least_cells=201) == [Pool(8, 150)]


def test_rows_that_grow_are_in_the_last_pool_whatever_they_begin_with():
    long = 20 * FIRST_COLUMNS
    needs = Needs.of([0] * 8, [50] * 6 + [long] * 2, [True] * 6 + [False] * 2)
    pools = length_classes(needs, 8)
    assert pools == [Pool(6, 50), Pool(2, FIRST_COLUMNS)]
    assert class_of_rows(pools, needs) == [0] * 6 + [1] * 2
    needs = Needs.of([0] * 8, [50] * 6 + [long] + [2000], [True] * 6 + [False, True])
    assert length_classes(needs, 8) == [Pool(6, 50), Pool(2, 2000)]
    needs = Needs.of([0] * 3, [FIRST_COLUMNS + 9, long, 2000], [True, False, True])
    assert class_of_rows([Pool(1, FIRST_COLUMNS + 9), Pool(2, 2000)], needs) == [0, 1, 1]
    # A limit within what it begins with is as good as a budget.
    assert not any(of([FIRST_COLUMNS] * 3, bounded=False).grows)


def test_needs_grow_to_what_a_row_may_need_at_most():
    needs = Needs.of([5, 5, 5], [700, 9000, 30], [False, False, True])
    assert needs.grown(1000).columns == [705, 1000, 35]
    assert needs.grown(10).columns == needs.columns == [517, 517, 35]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_pools_of_as_many_take_fewer_cells(seed):
    """Against every way to cut the sorted rows."""
    rng = random.Random(seed)
    most = sorted(rng.choice([3, 10, 40, 41, 90, 300]) + rng.randrange(3) for _ in range(9))
    pools = length_classes(of(most), 9)
    best = min(
        sum((end - begin) * most[end - 1] for begin, end in zip((0, *cuts), (*cuts, 9), strict=True))
        for cuts in combinations(range(1, 9), len(pools) - 1)
    )
    assert cells(pools) == best


DISTRIBUTIONS = {
    "uniform": lambda rng: rng.randrange(500, 32_000),
    "doubling": lambda rng: 512 * 2 ** rng.randrange(7),
    "tail": lambda rng: min(32_000, int(200 * rng.paretovariate(0.9))),
    "two": lambda rng: rng.choice([1_000, 32_000]),
}


@pytest.mark.parametrize(("rows", "slots"), [(64, 64), (70, 64), (150, 64), (512, 64), (120, 7), (5, 3)])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_pools_hold_every_row_and_hardly_add_a_step(kind, rows, slots):
    rng = random.Random(f"{kind} {rows}")
    needs = of([DISTRIBUTIONS[kind](rng) for _ in range(rows)], prompt_tokens=100)
    pools, one = length_classes(needs, slots), [Pool(slots, max(needs.columns))]
    assert sum(pool.slots for pool in pools) == slots
    lengths = [pool.columns for pool in pools]
    assert lengths == sorted(set(lengths))
    assert len(pools) <= 4
    assert lengths[-1] == max(needs.columns)
    assert cells(pools) <= cells(one)
    for row, pool in enumerate(class_of_rows(pools, needs)):
        assert needs.columns[row] <= lengths[pool]
        assert pool == 0 or needs.columns[row] > lengths[pool - 1]
    assert steps_of(needs, pools) <= steps_of(needs, one) * 33 / 32
    # Rows end early, each anywhere, and slots wait for each other: on average it stays within a twentieth.
    took, in_one = 0, 0
    for _ in range(5):
        ends = [rng.randrange(1, tokens + 1) for tokens in needs.tokens]
        took += steps_of(needs, pools, -(-slots // 8), ends)
        in_one += steps_of(needs, one, -(-slots // 8), ends)
    assert took <= in_one * 1.05


def test_memory_goes_to_the_rows_that_need_it():
    rng = random.Random(0)
    needs = of([DISTRIBUTIONS["tail"](rng) for _ in range(256)])
    one = cells([Pool(64, max(needs.columns))])
    assert cells(length_classes(needs, 64)) < one / 3


@pytest.mark.parametrize(("most", "slots", "expected"), [(5, 64, 5), (0, 64, 0), (63, 64, 63), (1, 2, 1)])
def test_the_most_slots_that_fit_are_found(most, slots, expected):
    assert most_slots(lambda n: n <= most, slots) == expected
