"""L1's rewards, by hand: a = 0.0003 unless said."""

import pytest

from elastic.rewards import l1_exact, l1_max
from elastic.rewards.length import l1_prompt, user_message


@pytest.mark.parametrize(
    ("correct", "target", "used", "expected"),
    [(1.0, 1000, 1000, 1.0), (1.0, 1000, 500, 0.85), (1.0, 1000, 1500, 0.85), (0.0, 1000, 2000, -0.3)],
)
def test_exact_pays_for_hitting_the_length(correct, target, used, expected):
    assert l1_exact(correct, target, used) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("correct", "target", "used", "expected"),
    [
        (1.0, 1000, 1000, 0.5),
        (1.0, 1000, 0, 0.8),
        (1.0, 4000, 0, 1.0),  # clipped above
        (1.0, 100, 4000, 0.0),  # and below
        (0.0, 1000, 0, 0.0),
    ],
)
def test_max_pays_for_staying_below(correct, target, used, expected):
    assert l1_max(correct, target, used) == pytest.approx(expected)


def test_alpha_scales_the_length_term():
    assert l1_exact(1.0, 10, 8, alpha=0.1) == pytest.approx(0.8)
    assert l1_max(1.0, 10, 8, alpha=0.1) == pytest.approx(0.7)


@pytest.mark.parametrize("reward", [l1_exact, l1_max])
@pytest.mark.parametrize(
    ("arguments", "name"), [((-1, 0, 0.1), "target"), ((1, -1, 0.1), "used"), ((1, 1, -1), "alpha")]
)
def test_negative_numbers_are_refused_by_name(reward, arguments, name):
    with pytest.raises(ValueError, match=rf"{name}\w* must be at least 0, got -1"):
        reward(1.0, *arguments)


def test_prompts_are_the_papers():
    assert l1_prompt("l1-exact", 512) == "Think for 512 tokens."
    assert l1_prompt("l1-max", 512) == "Think for maximum 512 tokens."
    with pytest.raises(ValueError, match="kind must be"):
        l1_prompt("l2", 512)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "1 + 1?"),
        ({"suffix": "Box it."}, "1 + 1?\nBox it."),
        ({"length": "l1-max", "target_tokens": 40}, "1 + 1? Think for maximum 40 tokens."),
        (
            {"suffix": "Box it.", "length": "l1-exact", "target_tokens": 7},
            "1 + 1?\nBox it. Think for 7 tokens.",
        ),
        ({"length": "l1-exact"}, "1 + 1?"),
        ({"target_tokens": 7}, "1 + 1?"),
    ],
)
def test_the_length_is_asked_for_last(options, text):
    assert user_message("1 + 1?", **options) == text
