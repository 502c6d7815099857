"""The claims on answers made up by hand: each follows from the data, and fails where they say otherwise."""

from dataclasses import replace

import pytest

from elastic.commands.replicate import plan
from elastic.commands.replicate.claims import Answers, Claim, claims
from elastic.commands.replicate.config import NONE, ReplicateConfig
from elastic.evaluate.sample import Sample

PROBLEMS = 40
CONFIG = ReplicateConfig(
    seeds=2,
    problems=PROBLEMS,
    thinking=16,
    solution=12,
    thinking_budgets=(0, 16, 48),
    splits=((8, 20), (20, 8)),
    unthought=(8,),
    ablation=((8, 12),),
)
UNLIMITED_TOKENS = {"e1": 50, "separate": 80}


def sample(
    arm: str, seed: int, pair: tuple, number: int, *, right: bool, tokens: int, solution: int
) -> Sample:
    thinking, limit = pair
    return Sample(
        *("tiny", arm, thinking, limit, None, f"p-{seed}-{number}", 0, float(right), tokens),
        thinking_tokens=tokens - solution,
        solution_tokens=solution,
        cut=thinking is not None and thinking < 48,
        answered=True,
        finish_reason="stop",
    )


def answers(shares: dict[str, float] | None = None, **changes: int) -> Answers:
    """Every arm right on a share of the problems under every budget, 0.5 unless said otherwise.

    Args:
        shares: of each arm.
        changes: unlimited tokens of an arm.
    """
    pairs = {arm.name: arm.pairs for group in plan.arms(CONFIG).values() for arm in group}
    pairs |= {arm.name: arm.pairs for arm in plan.swaps(CONFIG)}
    found = {}
    for arm in plan.labels(CONFIG):
        right = round(PROBLEMS * (shares or {}).get(arm, 0.5))
        for seed in CONFIG.all_seeds:
            found[arm, seed] = [
                sample(
                    arm,
                    seed,
                    pair,
                    number,
                    right=number < right,
                    tokens=changes.get(arm, UNLIMITED_TOKENS.get(arm, 60)) if pair == NONE else 10 + pair[0],
                    solution=4 if pair == NONE or pair[0] == 48 else 8,
                )
                for pair in pairs[arm]
                for number in range(PROBLEMS)
            ]
    return Answers(found, CONFIG.open_grid)


def outcomes(given: Answers) -> dict[str, str]:
    return {claim.name: claim.outcome for claim in claims(given, CONFIG)}


def named(given: Answers, name: str) -> Claim:
    return next(claim for claim in claims(given, CONFIG) if claim.name == name)


@pytest.mark.parametrize("other", ["separate", "s1", "vanilla"])
def test_e1_above_the_untrained_holds_fails_or_stays_open_by_its_answers(other: str) -> None:
    name = f"e1_above_{other}"
    assert outcomes(answers({"e1": 0.8, other: 0.5}))[name] == "holds"
    assert outcomes(answers({"e1": 0.5, other: 0.8}))[name] == "does not hold"
    assert outcomes(answers({"e1": 0.5, other: 0.5}))[name] == "open"


def test_every_tight_budget_is_compared() -> None:
    claim = named(answers(), "e1_above_separate")
    assert [item.at for item in claim.comparisons] == ["(0, 12)", "(16, 12)"]
    assert all(len(item.seeds) == 2 for item in claim.comparisons)


def test_close_to_l1_at_equal_tokens_follows_the_answers() -> None:
    assert outcomes(answers({"e1": 0.8, "l1_exact_long": 0.5}))["e1_close_to_l1_exact_long"] == "holds"
    assert (
        outcomes(answers({"e1": 0.5, "l1_exact_long": 0.8}))["e1_close_to_l1_exact_long"] == "does not hold"
    )
    claim = named(answers({"e1": 0.8, "l1_exact_long": 0.5}), "e1_close_to_l1_exact_long")
    # Curves from 10 to 60 and to 58 tokens, flat in accuracy.
    assert [item.at for item in claim.comparisons] == [f"{tokens} tokens" for tokens in range(16, 57, 8)]
    assert [item.levels for item in claim.comparisons] == [pytest.approx((0.8, 0.5))] * 6
    # Level is close enough.
    assert outcomes(answers({"e1": 0.5, "l1_max": 0.5}))["e1_close_to_l1_max"] != "does not hold"


def test_budgets_other_than_the_trained_one_are_all_that_generalising_looks_at() -> None:
    claim = named(answers({"e1": 0.8}), "generalises")
    assert [item.at for item in claim.comparisons] == ["(0, 12)", "(8, 20)", "(20, 8)"]
    assert claim.outcome == "holds"
    assert outcomes(answers({"separate": 0.8}))["generalises"] == "does not hold"


def test_shorter_and_accuracy_kept_are_two_claims() -> None:
    found = outcomes(answers({"e1": 0.5, "separate": 0.7}))
    assert (found["shorter"], found["accuracy_kept"]) == ("holds", "does not hold")
    found = outcomes(answers({"e1": 0.7, "separate": 0.5}, e1=90))
    assert (found["shorter"], found["accuracy_kept"]) == ("does not hold", "holds")


def test_the_swap_tells_solutions_and_thoughts_apart() -> None:
    found = outcomes(answers({"swap_solution": 0.9, "swap_thinking": 0.7, "separate": 0.5}))
    assert [found[name] for name in ("swap_solution", "swap_thinking", "swap_order")] == ["holds"] * 3
    found = outcomes(answers({"swap_solution": 0.7, "swap_thinking": 0.9, "separate": 0.8}))
    assert [found[name] for name in ("swap_solution", "swap_thinking", "swap_order")] == [
        *("does not hold", "holds", "does not hold"),
    ]


def test_controls_without_thinking_and_with_other_splits_are_claims_of_their_own() -> None:
    found = outcomes(answers({"e1": 0.8}))
    assert (found["no_thinking"], found["asymmetric"]) == ("holds", "holds")
    assert [item.at for item in named(answers(), "no_thinking").comparisons] == ["(0, 8)", "(0, 12)"]
    found = outcomes(answers({"separate": 0.8}))
    assert (found["no_thinking"], found["asymmetric"]) == ("does not hold", "does not hold")


def test_the_hard_cap_control_can_be_better_than_e1() -> None:
    found = outcomes(answers({"capped": 0.8}))
    assert found["e1_above_capped"] == "does not hold"
    assert found["e1_above_capped_equal_tokens"] == "does not hold"


def test_growing_solutions_are_measured_in_tokens() -> None:
    claim = named(answers(), "solutions_grow")
    assert claim.outcome == "holds"
    assert {item.unit for item in claim.comparisons} == {"tokens"}
    assert [item.value for item in claim.comparisons] == pytest.approx([4.0, 4.0])


def test_cut_rows_are_those_cut_in_both() -> None:
    given = answers({"e1": 0.8})
    claim = named(given, "cut_rows")
    assert claim.outcome == "holds"
    assert claim.comparisons[0].at == f"(0, 12), {2 * PROBLEMS} problems"
    whole = {
        (arm, seed): [replace(item, cut=False) for item in given.of(arm, seed)]
        if arm == "separate"
        else list(given._samples[arm, seed])
        for arm, seed in given._samples
    }
    controls = {
        key: [*found, *(s for s in given._samples[key] if s not in given.of(*key))]
        for key, found in whole.items()
    }
    assert named(Answers(controls, CONFIG.open_grid), "cut_rows").outcome == "open"


def test_an_arm_without_the_budget_is_named() -> None:
    with pytest.raises(ValueError, match=r"s1 has no answers under \(None, None\)"):
        answers().at("s1", 0, NONE)


def test_arms_without_a_common_seed_are_named() -> None:
    given = answers()
    with pytest.raises(ValueError, match="no seed has answers of e1 and missing"):
        given.seeds("e1", "missing")
