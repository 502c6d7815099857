"""The sizes that steps are recorded and compiled for."""

import pytest

from elastic.rollout.step.buckets import bucket, quarter


def test_buckets_are_powers_of_two_and_one_between():
    assert sorted({bucket(n, 100) for n in range(1, 101)}) == [
        1,
        2,
        3,
        4,
        6,
        8,
        12,
        16,
        24,
        32,
        48,
        64,
        96,
        100,
    ]
    assert [bucket(n, 64) for n in (1, 2, 3, 5, 7, 33, 49)] == [1, 2, 3, 6, 8, 48, 64]


def test_a_bucket_holds_what_it_is_for_and_stays_within_its_limits():
    for most in (1, 5, 64, 100):
        for n in range(1, most + 1):
            assert n <= bucket(n, most) <= most
    assert [bucket(n, 1000, 256) for n in (1, 256, 257, 385, 999)] == [256, 256, 384, 512, 1000]
    assert bucket(3, 40, 256) == 40


@pytest.mark.parametrize(
    ("slots", "sizes"), [(1, [1]), (2, [1, 2]), (64, [1, 4, 16, 64]), (100, [1, 2, 7, 25, 100])]
)
def test_compiled_sizes_are_a_quarter_of_each_other(slots, sizes):
    assert sorted({quarter(n, slots) for n in range(1, slots + 1)}) == sizes
    for n in range(1, slots + 1):
        assert quarter(n, slots) == min(size for size in sizes if size >= n)
