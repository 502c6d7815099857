"""Payloads made by hand: a small one with every part, and pieces to vary it."""

from typing import Any

SERIES = {
    "vanilla: one cap, cut hard": [(24, 0.066), (40, 0.195), (72, 0.52), (120, 0.82), (None, 0.965)],
    "separate budgeting, untrained": [(24, 0.17), (40, 0.19), (72, 0.585), (120, 0.955), (None, 0.965)],
    "control: trained under one hard cap": [(24, 0.145), (40, 0.19), (72, 0.77), (120, 0.98), (None, 0.98)],
    "E1: trained under budgets": [(24, 0.255), (40, 0.405), (72, 0.93), (120, 0.965), (None, 0.98)],
}
ARMS = [
    {"id": "base", "label": "separate budgeting, untrained"},
    {"id": "e1", "label": "E1: trained under budgets"},
]
BUDGETS = [{"id": "24+24", "label": "24 + 24"}, {"id": "none", "label": "no budget"}]
VERDICTS = [(0, 1), (1, 1), (0, 0), (1, 0), (0, 1)]


def answer(correct: int, thinking: str, solution: str, *, cut: bool = True, **facts: Any) -> dict[str, Any]:
    """An answer whose thought, cut or not, a forced marker ends."""
    return {
        "correct": correct,
        "segments": [["thinking", thinking], ["forced", " </think>\n"], ["solution", solution]],
        "tokens": 40,
        "thinking_tokens": 24,
        "solution_tokens": 16,
        "cut": cut,
        "finish_reason": "stop",
        "measures": {"rechecks": 2, "repetition": 0.125, "solution_share": 0.4, "steps_in_solution": 0.0},
        **facts,
    }


def problem(number: int, verdicts: tuple[int, int]) -> dict[str, Any]:
    """A problem whose two arms differ at 24+24 as the verdicts say and are both right without a budget."""
    base, trained = verdicts
    thought = f"first 6 * 8 is 48 ; then 48 + {number} is {48 + number} ; hm let me check 6 * 8 is 48"
    return {
        "id": f"p{number}",
        "data": "chains",
        "prompt": f"What is 6 * 8 + {number} ?",
        "answer": str(48 + number),
        "answers": {
            "base": {
                "24+24": answer(base, thought, "the answer is 48"),
                "none": answer(1, thought, f"the answer is {48 + number}", cut=False),
            },
            "e1": {
                "24+24": answer(
                    trained,
                    "6 * 8 is 48 ;",
                    f"48 + {number} is {48 + number} ; the answer is {48 + number}",
                    thinking_tokens=13,
                    solution_tokens=15,
                    tokens=28,
                    measures={
                        "rechecks": 0,
                        "repetition": 0.0,
                        "solution_share": 0.536,
                        "steps_in_solution": 0.5,
                    },
                ),
                "none": answer(1, thought, f"the answer is {48 + number}", cut=False),
            },
        },
    }


def full(problems: int = len(VERDICTS)) -> dict[str, Any]:
    """A payload with every part."""
    return {
        "title": "Embedded model: E1 trained under t* = 40, s* = 24 alone",
        "made": {"elastic": "0.1.0", "torch": "2.11.0", "date": "2026-11-27"},
        "notes": ["512 problems, one answer each."],
        "runs": [
            {"name": "demo", "kind": "demo", "facts": {"model": "tiny", "problems": 512, "seed": 0}},
            {"name": "training", "kind": "training", "facts": {"steps": 60, "budget": "40 + 24"}},
        ],
        "curves": curves(),
        "table": table(),
        "training": training(),
        "lengths": [
            {
                "run": "demo",
                "method": "e1",
                "label": "E1: trained under budgets",
                "points": [
                    {"asked": asked, "used": used, "low": used - 1.5, "high": used + 1.5, "count": 512}
                    for asked, used in [(0, 0.0), (8, 8.0), (24, 22.5), (40, 27.0), (64, 30.0)]
                ],
            }
        ],
        "claims": [
            {"claim": "E1 is more often right at 24 + 24", "outcome": "holds", "low": 0.26, "high": 0.35},
            {
                "claim": "E1 thinks no longer",
                "outcome": "does not hold",
                "low": None,
                "high": None,
                "note": "The other is not there.",
            },
        ],
        "traces": {
            "arms": ARMS,
            "budgets": BUDGETS,
            "problems": [problem(number, VERDICTS[number % len(VERDICTS)]) for number in range(problems)],
        },
        "reasoning": [
            {
                "arm": arm["label"],
                "budget": budget["label"],
                "count": 512,
                "thinking_tokens": thinking,
                "solution_tokens": 16.0,
                "rechecks": 0.7,
                "repetition": 0.11,
                "solution_share": 0.4,
                "steps_in_solution": None,
            }
            for arm, thinking in zip(ARMS, (24.0, 13.2), strict=True)
            for budget in BUDGETS
        ],
    }


def curves() -> list[dict[str, Any]]:
    """Accuracy of every series of `SERIES`."""
    return [
        {
            "run": "demo",
            "data": "chains",
            "method": f"m{index}",
            "label": label,
            "points": [
                {
                    "tokens": 0.7 * (budget or 100) + 6 * index,
                    "accuracy": accuracy,
                    "low": max(accuracy - 0.04, 0),
                    "high": min(accuracy + 0.04, 1),
                    "thinking": budget and budget - 16,
                    "solution": budget and 16,
                    "total": None,
                    "budget": f"{budget - 16} + 16" if budget else "none",
                }
                for budget, accuracy in points
            ],
        }
        for index, (label, points) in enumerate(SERIES.items())
    ]


def table() -> dict[str, Any]:
    """One row per point of the curves."""
    kinds = {"budget t + s": "text", "method": "text", "accuracy": "share", "low": "share", "high": "share"}
    kinds |= {"tokens": "tokens", "thinking": "tokens", "solution": "tokens", "leakage": "number"}
    columns = [{"key": title, "title": title, "kind": kind} for title, kind in kinds.items()]
    rows = [
        [
            *(point["budget"], curve["label"], point["accuracy"], point["low"], point["high"]),
            *(point["tokens"], point["tokens"] - 16, 16.0, None if index == 0 else 1.25),
        ]
        for curve in curves()
        for index, point in enumerate(curve["points"])
    ]
    return {"columns": columns, "rows": rows}


def training() -> list[dict[str, Any]]:
    """Two metrics of a run; one has a gap."""
    steps = list(range(60))
    reward = [None if step == 30 else 1 - 0.97**step for step in steps]
    thinking = [60 - 0.5 * step + step % 7 for step in steps]
    return [
        {"run": "training", "metric": metric, "title": title, "unit": unit, "steps": steps, "values": values}
        for metric, title, unit, values in [
            ("reward", "mean reward", "", reward),
            ("thinking", "tokens of thinking", "tokens", thinking),
        ]
    ]
