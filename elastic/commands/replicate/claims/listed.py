"""The claims: what is compared, under which budgets, with which margin.

Margins: 0 for "above"; 2 points for "close to or above" and for "keeps its accuracy". The paper is arXiv
2505.05315; its readers asked for equal tokens, t = 0, asymmetric splits and the control under one hard cap.
"""

from collections.abc import Sequence
from dataclasses import replace

from elastic.commands.replicate.claims.answers import Answers, budget_text
from elastic.commands.replicate.claims.rule import Claim, Difference, decide
from elastic.commands.replicate.config import NONE, BudgetPair, ReplicateConfig
from elastic.commands.replicate.plan import ablation_name

CLOSE = -0.02  # of a share: two points below is still close
_BY_OUTCOME = "A description and no test: the trainings decide which thoughts are cut."


def claims(answers: Answers, config: ReplicateConfig) -> list[Claim]:
    """All claims, in the order of the report.

    Args:
        answers: of every arm.
        config: of the run.
    """
    return [
        *(_above_the_untrained(answers, config, other) for other in ("separate", "s1", "vanilla")),
        _l1_obeys(answers, config),
        *(_close_to_l1(answers, config, other) for other in ("l1_exact", "l1_exact_long", "l1_max")),
        _generalises(answers, config),
        *_shorter(answers),
        *_ablation(answers, config),
        *_swap(answers, config),
        _growing_solutions(answers, config),
        _without_thinking(answers, config),
        _asymmetric(answers, config),
        _above_the_control(answers, config),
        _control_at_equal_tokens(answers, config),
        _cut_rows(answers, config),
        *(_variant(answers, config, other) for other in ("e1_random", "e1_curriculum", "anytime", "dler")),
    ]


def _at_every(
    answers: Answers, a: str, b: str, pairs: Sequence[BudgetPair], margin: float = 0.0
) -> list[Difference]:
    return [answers.accuracy(a, b, pair, margin=margin) for pair in pairs]


def _above_the_untrained(answers: Answers, config: ReplicateConfig, other: str) -> Claim:
    words = {"separate": "separate budgeting", "s1": "s1", "vanilla": "vanilla cutting"}[other]
    return decide(
        f"e1_above_{other}",
        f"E1 is above {words} of the untrained model at every tight budget",
        _at_every(answers, "e1", other, config.tight),
    )


def _l1_obeys(answers: Answers, config: ReplicateConfig) -> Claim:
    """What the comparison with L1 rests on: not a claim of the paper, and no result without it."""
    least, most = config.grid[0], config.grid[-1]
    asked = sum(map(int, filter(None, most))) - sum(map(int, filter(None, least)))
    more = answers.growth("l1_exact_long", most, least, lambda sample: sample.tokens, "tokens more")
    return decide(
        "l1_obeys",
        f"Condition: asked for {asked} tokens more, L1-Exact takes at least half as many more",
        [replace(more, margin=asked / 2)],
    )


def _close_to_l1(answers: Answers, config: ReplicateConfig, other: str) -> Claim:
    steps = {
        "l1_exact": f"L1-Exact after as many steps ({config.steps})",
        "l1_exact_long": f"L1-Exact after {config.long_steps} steps, E1's being {config.steps}",
        "l1_max": f"L1-Max after {config.long_steps} + {config.steps} steps, E1's being {config.steps}",
    }[other]
    return _equal_tokens(
        answers,
        config,
        f"e1_close_to_{other}",
        f"At equal tokens used E1 is close to (within 2 points) or above {steps}",
        other,
        margin=CLOSE,
    )


def _equal_tokens(
    answers: Answers, config: ReplicateConfig, name: str, claim: str, other: str, margin: float
) -> Claim:
    """E1 against another arm at the configured token counts that the curves of both reach in every seed."""
    seeds = answers.seeds("e1", other)
    own, theirs = ([answers.reach(arm, seed) for seed in seeds] for arm in ("e1", other))
    low, high = max(reach[0] for reach in own + theirs), min(reach[1] for reach in own + theirs)
    stops = [tokens for tokens in config.token_stops if low < tokens < high]
    note = f"E1 takes {_span(own)} tokens, the other {_span(theirs)}."
    if not stops:
        note += f" None of {', '.join(map(str, config.token_stops))} tokens is used by both in every seed."
    return decide(name, claim, [answers.at_equal_tokens("e1", other, stop, margin) for stop in stops], note)


def _span(reaches: Sequence[tuple[float, float]]) -> str:
    return f"{min(reach[0] for reach in reaches):.0f} to {max(reach[1] for reach in reaches):.0f}"


def _generalises(answers: Answers, config: ReplicateConfig) -> Claim:
    trained = (config.thinking, config.solution)
    pairs = [pair for pair in (*config.tight, *config.splits) if pair != trained]
    return decide(
        "generalises",
        f"Trained under {budget_text(trained)} alone, E1 is above separate budgeting at other budgets too",
        _at_every(answers, "e1", "separate", pairs),
    )


def _shorter(answers: Answers) -> list[Claim]:
    fewer = answers.tokens("e1", "separate", NONE, lambda sample: sample.tokens, "tokens fewer")
    kept = answers.accuracy("e1", "separate", NONE, margin=CLOSE)
    return [
        decide("shorter", "Without budgets E1 takes fewer tokens than the untrained model", [fewer]),
        decide("accuracy_kept", "Without budgets E1 keeps its accuracy (within 2 points)", [kept]),
    ]


def _ablation(answers: Answers, config: ReplicateConfig) -> list[Claim]:
    found = []
    for pair in config.ablation:
        name = ablation_name(pair)
        found.append(
            decide(
                f"ablation_{pair[0]}_{pair[1]}",
                f"E1 trained under {pair} is above separate budgeting at every tight budget (one seed)",
                _at_every(answers, name, "separate", config.tight),
            )
        )
    return found


def _swap(answers: Answers, config: ReplicateConfig) -> list[Claim]:
    thought = [pair for pair in config.tight if pair[0]]
    return [
        decide(
            "swap_solution",
            "Solutions of E1 behind the untrained model's thoughts are above separate budgeting",
            _at_every(answers, "swap_solution", "separate", thought),
        ),
        decide(
            "swap_thinking",
            "Thoughts of E1 in front of the untrained model's solutions are above separate budgeting",
            _at_every(answers, "swap_thinking", "separate", thought),
        ),
        decide(
            "swap_order",
            "E1's solutions alone gain more than its thoughts alone",
            _at_every(answers, "swap_solution", "swap_thinking", thought),
        ),
    ]


def _growing_solutions(answers: Answers, config: ReplicateConfig) -> Claim:
    loose = config.grid[-1]
    return decide(
        "solutions_grow",
        "As t becomes tight, E1's solutions grow: reasoning moves behind the cut (tokens more)",
        [
            answers.growth("e1", pair, loose, lambda sample: sample.solution_tokens, budget_text(pair))
            for pair in config.tight
        ],
    )


def _without_thinking(answers: Answers, config: ReplicateConfig) -> Claim:
    pairs = [(0, solution) for solution in sorted({*config.unthought, config.solution})]
    return decide(
        "no_thinking",
        "Control: at t = 0, where there is no thought, E1 is above separate budgeting",
        _at_every(answers, "e1", "separate", pairs),
    )


def _asymmetric(answers: Answers, config: ReplicateConfig) -> Claim:
    return decide(
        "asymmetric",
        f"Control: E1 is above separate budgeting however t + s = {sum(config.splits[0])} is split",
        _at_every(answers, "e1", "separate", config.splits),
    )


def _above_the_control(answers: Answers, config: ReplicateConfig) -> Claim:
    return decide(
        "e1_above_capped",
        "E1 is above the control, GRPO under one hard cap of the same total, at every tight budget",
        _at_every(answers, "e1", "capped", config.tight),
    )


def _control_at_equal_tokens(answers: Answers, config: ReplicateConfig) -> Claim:
    return _equal_tokens(
        answers,
        config,
        "e1_above_capped_equal_tokens",
        "E1 is above the control at equal tokens used",
        "capped",
        margin=0.0,
    )


def _cut_rows(answers: Answers, config: ReplicateConfig) -> Claim:
    found = [answers.cut_in_both("e1", "separate", pair) for pair in config.tight]
    return decide(
        "cut_rows",
        "On problems whose thought was cut in both, E1 is above separate budgeting",
        [item for item in found if item is not None],
        _BY_OUTCOME,
    )


def _variant(answers: Answers, config: ReplicateConfig, other: str) -> Claim:
    words = {
        "e1_random": "E1 trained under random budgets",
        "e1_curriculum": "E1 trained under shrinking budgets (arXiv 2508.08940)",
        "anytime": "AnytimeReasoner (arXiv 2505.13438), which is trained at several cuts,",
        "dler": "DLER (arXiv 2510.15110) under the same budgets",
    }[other]
    return decide(
        f"e1_close_to_{other}",
        f"E1 with one fixed pair is close to (within 2 points) or above {words} at every tight budget",
        _at_every(answers, "e1", other, config.tight, CLOSE),
    )
