"""Requests of the embedded model, and what the own engine answers."""

from elastic import Budget, RolloutEngine, Sampling
from elastic.sampling import row_seed
from tests.integrations.vllm.offline import params

SUMS = (
    "a 3 b + 4 c - 9 = ?",
    "a 9 b - 2 c - 5 d + 8 = ?",
    "a 1 b + 1 = ?",
    "a 7 b - 8 c + 4 d - 3 e + 6 = ?",
)
BUDGETS = (
    Budget(8, 6),
    Budget(24, 12),
    Budget(0, 9),
    Budget(40, None, total=48),
    Budget(12, 5, closing="wait </think> so answer is"),
    Budget(10, 8, grace=6),
    Budget(60, 20, min_thinking=40, max_extensions=2, extension="wait"),
    Budget(20, 8, notices=((6, "have"), (11, "check"))),
    Budget.vanilla(30),
    Budget(16, 10, on_reopen="forbid", on_reclose="forbid"),
)
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "seeded": Sampling(temperature=1.2),
    "filtered": Sampling(temperature=1.5, top_k=9, top_p=0.9, min_p=0.05),
}


def prompt_ids(tokenizer, length=0):
    """The sums with their thinking open, and in front of them as many further tokens."""
    return [[4 + 2 + i % 10 for i in range(length)] + tokenizer.encode(f"{sum_} <think>") for sum_ in SUMS]


def own_tokens(tiny, prompts, budgets, sampling, seeds):
    """The rows of `RolloutEngine`, with the EOS with which vLLM ends one that its budget has ended."""
    batch = RolloutEngine(*tiny).generate(prompts, list(budgets), 1, sampling, seeds=list(seeds))
    eos = tiny[1].eos_token_id
    rows = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    return [row if row[-1] == eos else [*row, eos] for row in rows]


def servers_seeds(count):
    """Of the first requests that give none. With seeds of their own vLLM 0.32 stops on a CPU where it throws
    a draw away: its generators cannot be set back there.
    """
    return [row_seed(0, n) for n in range(count)]


def requests(sampling, budgets, seeds):
    options = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return [params(budget, seed=seed, **options) for budget, seed in zip(budgets, seeds, strict=True)]
