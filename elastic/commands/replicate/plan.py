"""What is trained, from what, and what each model then answers.

An arm is a model with a way of answering; it is what rows, samples and claims are about. Its name is the
method's in `elastic.evaluate.methods` where it has one of its own.
"""

from dataclasses import dataclass
from typing import Any

from elastic.commands.replicate.config import BudgetPair, Pair, ReplicateConfig

MODULE = "elastic.commands.replicate.part"  # where `run_part` is
BASE = "base"

# What the paper writes as "Final Answer:" in the embedded model's words.
S1_CLOSING = "{end} answer is"


@dataclass(frozen=True)
class Training:
    """One training of a chain.

    Attributes:
        name: of the trained model, and of its run's directory.
        method: preset of its configuration.
        tables: keys of a training configuration, by table.
        steps: rollout batches.
        start: the model it starts from, and stays close to: the base, or an earlier training of the chain.
        continued: an earlier training of the chain whose run this one continues up to `steps`; None for none.
    """

    name: str
    method: str
    tables: dict[str, dict[str, Any]]
    steps: int
    start: str = BASE
    continued: str | None = None


@dataclass(frozen=True)
class Arm:
    """A way in which a model answers.

    Attributes:
        name: in rows and samples.
        label: in tables and legends.
        method: its policy at inference, in `elastic.evaluate.methods`.
        pairs: the (t, s) it answers under.
        closing: forced where a thought is cut; None for the bare end marker.
    """

    name: str
    label: str
    method: str
    pairs: tuple[BudgetPair, ...]
    closing: str | None = None


def chains(config: ReplicateConfig) -> dict[str, list[Training]]:
    """The trainings, each chain by its name: what runs as one part, once per seed; long ones first."""
    steps, curriculum = config.steps, config.curriculum_start
    pair = {"thinking": config.thinking, "solution": config.solution}
    cap = {"total": config.thinking + config.solution}
    shrinking = pair | {"thinking_start": curriculum, "curriculum_steps": steps}
    cuts = pair | {"cuts": list(config.cuts)}
    # Dynamic sampling draws at most three batches a step, and no problem comes twice.
    enough = {"count": 3 * steps * config.prompts_per_step}
    low, high = config.request
    asking: dict[str, dict[str, Any]] = {
        "reward": {"alpha": config.alpha, "target_min": low, "target_max": high},
        "rollout": {"max_new_tokens": config.max_new_tokens},
    }
    # The longer run continues the shorter one, so both have the problems of the longer one.
    longer = asking | {"data": {"count": config.long_steps * config.prompts_per_step}}
    return {
        "l1": [
            Training("l1_exact", "l1_exact", longer, steps),
            Training("l1_exact_long", "l1_exact", longer, config.long_steps, continued="l1_exact"),
            Training("l1_max", "l1_max", asking, steps, start="l1_exact_long"),
        ],
        "anytime": [Training("anytime", "anytime", {"budget": cuts}, steps)],
        "dler": [Training("dler", "dler", {"budget": cap, "data": enough}, steps)],
        "e1": [Training("e1", "e1", {"budget": pair}, steps)],
        "capped": [Training("capped", "capped", {"budget": cap}, steps)],
        "e1_random": [Training("e1_random", "e1_random", {"budget": pair}, steps)],
        "e1_curriculum": [Training("e1_curriculum", "e1_curriculum", {"budget": shrinking}, steps)],
    }


def ablations(config: ReplicateConfig) -> dict[str, list[Training]]:
    """E1 under other (t*, s*), by chain; with the first seed alone."""
    return {
        ablation_name(pair): [
            Training(
                ablation_name(pair),
                "e1",
                {"budget": {"thinking": pair[0], "solution": pair[1]}},
                config.steps,
            )
        ]
        for pair in config.ablation
    }


def ablation_name(pair: Pair) -> str:
    """The name of E1 trained under another (t*, s*)."""
    return f"e1_{pair[0]}_{pair[1]}"


def arms(config: ReplicateConfig) -> dict[str, list[Arm]]:
    """What each model answers, by its name; `base` is the untrained one."""
    grid, open_grid, controls = (tuple(p) for p in (config.grid, config.open_grid, config.controls))
    found = {
        BASE: [
            Arm("vanilla", "vanilla", "vanilla", open_grid),
            Arm("s1", "s1, forced answer, no Wait", "separate", grid, closing=S1_CLOSING),
            Arm("separate", "separate budgeting", "separate", (*open_grid, *controls)),
        ],
        "e1": [Arm("e1", "E1", "e1", (*open_grid, *controls))],
        "capped": [Arm("capped", "control: one hard cap", "capped", (*open_grid, *controls))],
        "e1_random": [Arm("e1_random", "E1, random budgets", "separate", open_grid)],
        "e1_curriculum": [Arm("e1_curriculum", "E1, curriculum", "separate", open_grid)],
        "anytime": [Arm("anytime", "AnytimeReasoner", "separate", open_grid)],
        "dler": [Arm("dler", "DLER", "separate", open_grid)],
    }
    for name, label, method in (
        ("l1_exact", f"L1-Exact, {config.steps} steps", "l1_exact"),
        ("l1_exact_long", f"L1-Exact, {config.long_steps} steps", "l1_exact"),
        ("l1_max", "L1-Max", "l1_max"),
    ):
        found[name] = [Arm(name, label, method, grid)]
        if name != "l1_exact":
            separate = Arm(f"{name}_separate", f"{label}, separate budgets", "separate", open_grid)
            found[name].append(separate)
    for pair in config.ablation:
        label = f"E1 trained under ({pair[0]}, {pair[1]})"
        found[ablation_name(pair)] = [Arm(ablation_name(pair), label, "separate", open_grid)]
    return found


def swaps(config: ReplicateConfig) -> list[Arm]:
    """The segment swap: thoughts of one model and solutions of another, where there is a thought to cut."""
    pairs = tuple(pair for pair in config.tight if pair[0])
    return [
        Arm("swap_solution", "thoughts of the base, solutions of E1", "separate", pairs),
        Arm("swap_thinking", "thoughts of E1, solutions of the base", "separate", pairs),
    ]


def labels(config: ReplicateConfig) -> dict[str, str]:
    """What tables call each arm."""
    return {arm.name: arm.label for group in (*arms(config).values(), swaps(config)) for arm in group}


def parts(config: ReplicateConfig) -> list[str]:
    """Names of the parts, as `CHAIN-SEED`, in the order in which they start."""
    of_seeds = [f"{name}-{seed}" for name in chains(config) for seed in config.all_seeds]
    alone = [f"{name}-{config.first_seed}" for name in ablations(config)]
    return [*of_seeds, *alone, *(f"{BASE}-{seed}" for seed in config.all_seeds)]
