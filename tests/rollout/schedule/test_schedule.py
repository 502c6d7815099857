"""The host's half of decoding: which row has which slot, and until when. It needs no torch."""

import subprocess
import sys

from elastic.rollout.schedule import schedule as schedule_file
from elastic.rollout.schedule.needs import FIRST_COLUMNS, Needs
from elastic.rollout.schedule.pools import Pool, class_of_rows
from elastic.rollout.schedule.schedule import Schedule


def of(most, slots, refill=1, prompts=None, lengths=None, bounded=None):
    """A schedule of rows that are all samples of one prompt of 4 tokens, unless said otherwise."""
    prompts = prompts or [0] * len(most)
    lengths = lengths or [4] * (max(prompts) + 1)
    needs = Needs.of([lengths[k] for k in prompts], most, bounded or [True] * len(most))
    pools = [Pool(slots, max(needs.columns))]
    return Schedule(prompts, lengths, most, needs, pools, class_of_rows(pools, needs), refill)


def begun(*arguments, **options):
    """The same with its first rows admitted."""
    schedule = of(*arguments, **options)
    schedule.admit(schedule.refill())
    return schedule


def test_it_runs_where_there_is_no_torch():
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, schedule_file.__file__], check=True)


def test_the_longest_rows_start_and_equal_ones_stay_beside_their_prompt():
    schedule = of([3, 9, 3, 9, 3], slots=5, prompts=[1, 1, 0, 0, 0])
    assert schedule.busy
    assert schedule.refill() == [0, 1, 2, 3, 4]
    assert schedule.admit([0, 1, 2, 3, 4]) == [3, 1, 2, 4, 0]
    assert (schedule.row, schedule.alive) == ([3, 1, 2, 4, 0], 5)
    assert schedule.refill() == []


def test_a_prompt_is_awaited_until_its_last_row_has_a_slot():
    schedule = begun([5, 5, 4], slots=1, prompts=[0, 0, 1])
    assert [schedule.awaited(0), schedule.awaited(1)] == [True, True]
    for left in ([False, True], [False, False]):
        schedule.finish([0])
        schedule.admit(schedule.refill())
        assert [schedule.awaited(0), schedule.awaited(1)] == left


def test_a_refill_waits_for_enough_free_slots():
    schedule = begun([9, 8, 7, 6, 5, 4, 3], slots=4, refill=2)
    assert schedule.row == [0, 1, 2, 3]
    schedule.step = 2
    schedule.finish([2])
    assert schedule.refill() == []
    assert not schedule.sparse  # rows wait for the free slot
    schedule.finish([0])
    assert schedule.refill() == [0, 2]
    assert schedule.admit([0, 2]) == [4, 5]
    assert (schedule.row, schedule.start) == ([4, 1, 5, 3], [2, 0, 2, 0])
    # One row is left: it does not wait for a second free slot, and takes one alone.
    schedule.finish([1, 3])
    assert schedule.refill() == [1]
    assert schedule.admit([1]) == [6]
    assert schedule.refill() == []


def test_a_refill_waits_for_no_more_slots_than_rows_wait_or_than_there_are():
    schedule = begun([9, 8, 7], slots=2, refill=9)
    schedule.finish([0])
    assert schedule.refill() == [0]  # for the only row that waits
    schedule = begun([9, 8, 7, 6], slots=2, refill=9)
    schedule.finish([0])
    assert schedule.refill() == []  # two wait
    schedule.finish([1])
    assert schedule.refill() == [0, 1]  # nothing decodes any more


def test_a_compaction_moves_the_last_rows_into_the_gaps():
    schedule = begun([9, 8, 7, 6, 5, 4], slots=6, refill=2)
    schedule.step = 3
    schedule.finish([1])
    assert schedule.sparse  # an eighth of six slots is less than one slot, so one free slot will do
    schedule.finish([2, 5])
    assert schedule.compact() == ([3, 4], [1, 2])
    assert (schedule.used, schedule.alive, schedule.live) == (3, 3, [True] * 3 + [False] * 3)
    assert schedule.row[:3] == [0, 3, 4]
    assert not schedule.sparse


def test_a_compaction_without_a_gap_moves_nothing():
    schedule = begun([9, 8, 7], slots=3)
    schedule.finish([2])
    assert schedule.compact() == ([], [])
    assert (schedule.used, schedule.row[:2]) == (2, [0, 1])


def test_a_moved_row_ends_at_its_own_step():
    schedule = begun([4, 3, 2], slots=2)
    schedule.step = 3
    assert schedule.spent() == [1]
    schedule.finish([1])
    schedule.admit(schedule.refill())  # row 2, from step 3 to step 5
    schedule.step = 4
    assert schedule.spent() == [0]
    schedule.finish([0])
    assert schedule.compact() == ([1], [0])
    assert (schedule.row[0], schedule.emitted(0), schedule.spent()) == (2, 1, [])
    schedule.step = 5
    assert schedule.spent() == [0]
    schedule.finish([0])
    assert not schedule.busy


def test_columns_follow_the_row_in_flight_that_is_farthest():
    schedule = of([3, 3, 3], slots=2, prompts=[0, 1, 2], lengths=[10, 4, 6])
    assert (schedule.pools[0].columns, schedule.most_columns) == (13, 13)
    schedule.admit([0, 1])
    schedule.step = 1  # each has a token: prompts of 10 and 4 and one more
    assert schedule.columns == 11
    schedule.finish([0])
    assert schedule.columns == 5
    schedule.admit([0])  # a prompt of 6 that emits from step 1 on
    schedule.step = 2
    assert schedule.columns == 7


def test_columns_stay_within_what_the_longest_row_may_need():
    schedule = begun([2], slots=1)
    schedule.step = 7
    assert schedule.columns == 6


def test_a_bounded_row_has_all_its_columns_from_the_start_and_others_some():
    long = 4 * FIRST_COLUMNS
    bounded = of([long, 3], slots=2, bounded=[True, True])
    assert (bounded.first_tokens, bounded.pools[0].columns) == (long, long + 4)
    unbounded = of([long, 3], slots=2, bounded=[False, True])
    assert (unbounded.first_tokens, unbounded.pools[0].columns) == (FIRST_COLUMNS, FIRST_COLUMNS + 4)
    assert (unbounded.most_tokens, unbounded.most_columns) == (long, long + 4)
    mixed = of([long, 700], slots=2, bounded=[False, True], prompts=[0, 1], lengths=[4, 9])
    assert (mixed.first_tokens, mixed.pools[0].columns) == (700, 709)
    short = of([7], slots=1, bounded=[False])
    assert (short.first_tokens, short.pools[0].columns) == (7, 11)


def test_a_late_report_says_nothing_of_a_slot_that_changed_hands():
    schedule = begun([9, 8, 7], slots=2)
    then = list(schedule.row)
    assert schedule.still([0, 1], then) == [0, 1]
    schedule.finish([1])
    assert schedule.still([0, 1], then) == [0]
    schedule.admit(schedule.refill())
    assert schedule.still([0, 1], then) == [0]


def test_a_record_is_as_wide_as_the_longest_row_in_the_slots():
    schedule = begun([9, 2], slots=3)
    schedule.step = 5
    assert schedule.longest() == 5
    schedule.finish([0])  # its tokens are in the log until the slot is reused
    assert schedule.longest() == 5
    schedule = begun([9, 2], slots=1)
    schedule.step = 4
    schedule.finish([0])
    schedule.admit([0])
    schedule.step = 7  # three steps, of which the row's limit takes two
    assert schedule.longest() == 2


def pooled(most, pools, refill=1, prompts=None):
    """A schedule of rows in pools."""
    prompts = prompts or [0] * len(most)
    needs = Needs.of([4] * len(most), most, [True] * len(most))
    row_pool = class_of_rows(pools, needs)
    return Schedule(prompts, [4] * (max(prompts) + 1), most, needs, pools, row_pool, refill)


def test_a_row_takes_a_slot_of_its_length_or_a_longer_one_never_a_shorter():
    # Rows 0, 3 and 4 need the long pool, slots 2 and 3.
    schedule = pooled([90, 5, 6, 80, 70, 4], [Pool(2, 10), Pool(2, 94)])
    assert schedule.refill() == [0, 1, 2, 3]
    assert schedule.admit([0, 1, 2, 3]) == [2, 1, 0, 3]
    schedule.step = 5
    schedule.finish([1])
    assert schedule.refill() == [1]
    assert schedule.admit([1]) == [5]  # row 4 is longer and waits
    schedule.finish([0, 1])
    assert schedule.refill() == []
    schedule.finish([2, 3])
    assert schedule.refill() == [2]
    assert schedule.admit([2]) == [4]
    schedule = pooled([90, 5], [Pool(2, 10), Pool(2, 94)])
    assert schedule.refill() == [0, 2]  # one slot for each row
    schedule = pooled([90, 5, 6], [Pool(1, 10), Pool(2, 94)])
    assert schedule.admit(schedule.refill()) == [2, 0, 1]  # a short row in a long slot that no long row wants


def test_each_pool_waits_for_its_own_share_of_free_slots():
    schedule = pooled([90] * 4 + [5] * 40, [Pool(12, 10), Pool(4, 94)], refill=4)
    schedule.admit(schedule.refill())
    schedule.finish([0, 1])
    assert schedule.refill() == []  # 3 of the short pool's 12
    schedule.finish([12])
    assert schedule.refill() == [0, 1, 12]  # 1 of the long pool's 4; who is free goes along


def test_a_compaction_keeps_pools_that_rows_wait_for_and_numbers_slots_anew():
    schedule = pooled([5, 6, 4, 90, 80, 70], [Pool(3, 10), Pool(2, 94)], refill=2)
    assert schedule.admit(schedule.refill()) == [1, 0, 2, 3, 4]
    schedule.step = 4
    schedule.finish([0])
    assert schedule.sparse  # row 5 waits, but for a long slot
    assert schedule.compact() == ([2, 3, 4], [0, 2, 3])
    assert (schedule.counts, schedule.used, schedule.alive) == ([2, 2], 4, 4)
    assert (schedule.row[:4], schedule.live[:4]) == ([2, 0, 3, 4], [True] * 4)
    assert not schedule.sparse
    schedule.finish([0, 1])
    assert schedule.compact() == ([2, 3], [0, 1])
    assert (schedule.counts, schedule.row[:2]) == ([0, 2], [3, 4])
    schedule.step = 80
    schedule.finish([1])
    assert schedule.refill() == [1]
    assert schedule.admit([1]) == [5]
    assert not schedule.awaited(0)


def test_a_compaction_leaves_as_many_slots_as_its_bucket():
    needs = Needs.of([4] * 8, [9] * 8, [True] * 8)
    pools = [Pool(8, 13)]
    schedule = Schedule([0] * 8, [4], [9] * 8, needs, pools, [0] * 8, 1, lambda n: -(-n // 4) * 4)
    schedule.admit(schedule.refill())
    schedule.finish([0, 2, 5])
    assert not schedule.sparse  # five rows have a bucket of eight
    schedule.finish([1, 6])
    assert schedule.sparse
    assert schedule.compact() == ([4, 7], [0, 1])
    assert (schedule.counts, schedule.alive) == ([4], 3)
    assert (schedule.row[:4], schedule.live[:4]) == ([4, 7, 2, 3], [True, True, False, True])
    assert not schedule.sparse
