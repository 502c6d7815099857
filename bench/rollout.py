"""Rollouts under budgets: the engine against `generate` with a budget processor and against two calls.

    python -m bench.rollout --size tiny --rows 16 64

Random-weight Qwen3 models, one thread, sampling over the whole vocabulary, prompts of 16-48 tokens. Two
kinds of lengths: `budgets` (uniform 8-128, set by each row's budget, no row ends by itself) and `natural`
(end marker and EOS come with probability 1/40 a token, under budgets of 128 + 64). Speed is useful tokens a
second: tokens of completions, not of padding. The methods are checked against each other before they are
timed.
"""

import argparse
import itertools
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from bench.compare import Timing, Variant, compare
from elastic import Budget, Markers, RolloutEngine, Sampling
from elastic.rollout.baselines import Request, hf_generate, two_calls

PAD, EOS, START, END, FIRST_WORD = 0, 1, 2, 3, 4
MARKERS = Markers((START,), (END,), "<think>", "</think>")
SAMPLING = Sampling(temperature=1.0)
SIZES = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 384,
        "vocab_size": 512,
    },
    "small": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1536,
        "vocab_size": 32768,
    },
}


def make_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One word an id; the prompts are ids already."""
    names = ["<pad>", "<eos>", "<think>", "</think>"]
    words = {name: i for i, name in enumerate([*names, *(f"w{i}" for i in range(len(names), vocab))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


@dataclass
class Method:
    """One way to decode.

    Attributes:
        run: requests and a seed to token ids of the completions.
        on_eos: the rule it applies to EOS while thinking (SPEC R6).
        tokens: useful tokens of each timed round.
    """

    run: Callable[[Sequence[Request], int, Sampling], list[list[int]]]
    on_eos: str
    tokens: list[int] = field(default_factory=list)


def build(size: str, likely_ends: bool) -> Any:
    """A random model; its head's bias makes EOS and end marker come once in 40 tokens each, or never."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES[size],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    model = Qwen3ForCausalLM(config).eval().requires_grad_(False)
    vocab = config.vocab_size
    bias = torch.zeros(vocab)
    bias[[PAD, START]] = -1e4
    bias[[EOS, END]] = torch.tensor(vocab / 40.0).log() if likely_ends else -1e4
    model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return model


def make_requests(
    count: int, vocab: int, lengths: str, group: int, on_eos: str, seed: int = 1
) -> list[Request]:
    rng = random.Random(seed)
    requests = []
    for row in range(count):
        if row % group == 0:
            prompt = [rng.randrange(FIRST_WORD, vocab) for _ in range(rng.randrange(16, 49))] + [START]
        total = rng.randrange(8, 129)
        thinking = total // 2
        budget = Budget(thinking, total - thinking - 1, on_eos=on_eos)  # the end marker is a token too
        if lengths == "natural":
            budget = Budget(128, 64, on_eos=on_eos)
        requests.append(Request(prompt, budget))
    return requests


def methods(model: Any, rows: int) -> dict[str, Method]:
    options = {"batch_rows": rows, "eos_ids": [EOS], "pad_id": PAD}
    engine = RolloutEngine(
        model, make_tokenizer(model.config.vocab_size), MARKERS, max_rows=rows, eos_ids=EOS
    )

    def by_engine(requests: Sequence[Request], seed: int, sampling: Sampling) -> list[list[int]]:
        prompts, samples = [requests[0].prompt], 0
        for request in requests:  # rows of one prompt stand together
            if request.prompt is not prompts[-1]:
                prompts.append(request.prompt)
        samples = len(requests) // len(prompts)
        batch = engine.generate(
            prompts,
            [request.budget for request in requests],
            samples,
            Sampling(sampling.temperature, seed=seed),
        )
        return [batch.tokens[row, :n].tolist() for row, n in enumerate(batch.lengths.tolist())]

    def by_generate(requests: Sequence[Request], seed: int, sampling: Sampling) -> list[list[int]]:
        torch.manual_seed(seed)
        return hf_generate(model, requests, MARKERS, sampling, **options)

    def by_sorted_generate(requests: Sequence[Request], seed: int, sampling: Sampling) -> list[list[int]]:
        torch.manual_seed(seed)
        order = sorted(range(len(requests)), key=lambda i: -(requests[i].budget.max_sampled or 0))
        made = hf_generate(model, [requests[i] for i in order], MARKERS, sampling, **options)
        return [tokens for _, tokens in sorted(zip(order, made, strict=True))]

    def by_two_calls(requests: Sequence[Request], seed: int, sampling: Sampling) -> list[list[int]]:
        torch.manual_seed(seed)
        return two_calls(model, requests, MARKERS, sampling, **options)

    return {
        "generate + budget processor": Method(by_generate, "stop"),
        "the same, sorted by budget": Method(by_sorted_generate, "stop"),
        "two calls": Method(by_two_calls, "close"),
        "engine": Method(by_engine, "stop"),
        "engine, EOS closes": Method(by_engine, "close"),
    }


def check(found: dict[str, Method], rows: int, vocab: int, lengths: str, group: int) -> None:
    """Greedy completions of the methods are equal; sampled ones keep their budgets.

    Raises:
        AssertionError: they do not.
    """
    greedy: dict[str, dict[str, list[list[int]]]] = {"stop": {}, "close": {}}
    for name, method in found.items():
        requests = make_requests(2 * rows, vocab, lengths, group, method.on_eos)
        greedy[method.on_eos][name] = method.run(requests, 0, Sampling(temperature=0.0))
        for request, tokens in zip(requests, method.run(requests, 0, SAMPLING), strict=True):
            thinking, solution = request.budget.thinking or 0, request.budget.solution or 0
            cut = tokens.index(END) if END in tokens else len(tokens)
            assert cut <= thinking + (EOS in tokens[:cut]), name
            assert len(tokens) - cut - 1 <= solution, name
            if lengths == "budgets":
                assert (cut, len(tokens)) == (thinking, thinking + 1 + solution), name
    for same in greedy.values():
        first, *others = same.values()
        assert all(other == first for other in others), f"greedy completions differ: {list(same)}"


def measure(size: str, rows: int, lengths: str, group: int, rounds: int, multiple: int) -> str:
    model = build(size, lengths == "natural")
    vocab = model.config.vocab_size
    found = methods(model, rows)
    if lengths == "natural":
        del found["the same, sorted by budget"]  # all budgets are the same
    check(found, min(rows, 8), vocab, lengths, group)

    def timed(method: Method) -> Callable[[int], None]:
        requests = make_requests(multiple * rows, vocab, lengths, group, method.on_eos)

        def run(number: int) -> None:
            made = method.run(requests, max(number, 0), SAMPLING)
            if number >= 0:
                method.tokens.append(sum(map(len, made)))

        return run

    timings = compare([Variant(name, timed(method)) for name, method in found.items()], rounds)
    return table(found, timings)


def table(found: dict[str, Method], timings: dict[str, Timing]) -> str:
    """Useful tokens a second, and the engine's speed against each method under the same EOS rule."""
    lines = [
        "| method | tokens/s, wall | tokens/s, CPU | engine / method, wall | the same, CPU (min-max) |",
        "|---|---|---|---|---|",
    ]
    engines = {"stop": "engine", "close": "engine, EOS closes"}

    def speeds(name: str, times: list[float]) -> list[float]:
        return [1e3 * n / ms for n, ms in zip(found[name].tokens, times, strict=True)]

    for name, method in found.items():
        wall, cpu = speeds(name, timings[name].wall_ms), speeds(name, timings[name].cpu_ms)
        best = timings[engines[method.on_eos]]
        ours = speeds(engines[method.on_eos], best.wall_ms), speeds(engines[method.on_eos], best.cpu_ms)
        by_wall = statistics.median(a / b for a, b in zip(ours[0], wall, strict=True))
        by_cpu = sorted(a / b for a, b in zip(ours[1], cpu, strict=True))
        lines.append(
            f"| {name} | {statistics.median(wall):.0f} | {statistics.median(cpu):.0f} | {by_wall:.2f} | "
            f"{statistics.median(by_cpu):.2f} ({by_cpu[0]:.2f}-{by_cpu[-1]:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64], help="rows decoded together")
    parser.add_argument(
        "--lengths", choices=("budgets", "natural"), nargs="+", default=["budgets", "natural"]
    )
    parser.add_argument("--group", type=int, nargs="+", default=[1], help="rows that share a prompt")
    parser.add_argument("--requests", type=int, default=4, help="requests, as a multiple of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} thread(s), {args.rounds} interleaved rounds")
    for size, rows, lengths, group in itertools.product(args.size, args.rows, args.lengths, args.group):
        print(f"\n{size}, {rows} rows, {args.requests * rows} requests, lengths {lengths}, group {group}")
        print(measure(size, rows, lengths, group, args.rounds, args.requests), flush=True)


if __name__ == "__main__":
    main()
