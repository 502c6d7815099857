"""Rollouts under budgets: the engine against `generate` with a budget processor and against two calls.

Random-weight Qwen3 models, sampling over the whole vocabulary, prompts of 16-48 tokens. Two kinds of lengths:
`budgets` (uniform 8-128, set by each row's budget, no row ends by itself) and `natural` (end marker and EOS
come with probability 1/40 a token, under budgets of 128 + 64). Items are tokens of completions, not of
padding; where methods make different numbers of them, times are scaled to the most that budgets allow. The
methods are checked against each other before they are timed.

The ceiling is what decoding must read, at the rate of reading and writing as many bytes as the weights have:
the weights at each of the fewest steps that are possible, and the keys and values that are there. On a CPU
each method's steps are counted, and the share of its time outside the model's forward is measured.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bench.harness import random_models
from bench.harness.case import Case, Variant, ceiling
from bench.harness.device import Device
from bench.harness.forwards import watched
from bench.ops.baselines import Request, hf_generate, two_calls
from bench.ops.traffic import call_bytes, weight_bytes
from elastic import Budget, Markers, RolloutEngine, Sampling

PAD, EOS, START, END, FIRST_WORD = 0, 1, 2, 3, 4
MARKERS = Markers((START,), (END,), "<think>", "</think>")
SAMPLING = Sampling(temperature=1.0)
BASELINE, ENGINE = "generate + budget processor", "elastic"


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
    """

    run: Callable[[Sequence[Request], int, Sampling], list[list[int]]]
    on_eos: str


def build(size: str, likely_ends: bool) -> Any:
    """A random model; its head's bias makes EOS and end marker come once in 40 tokens each, or never."""
    model = random_models.build(size, pad_token_id=PAD, eos_token_id=EOS).eval().requires_grad_(False)
    vocab = model.config.vocab_size
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
        BASELINE: Method(by_generate, "stop"),
        "the same, sorted by budget": Method(by_sorted_generate, "stop"),
        "two calls": Method(by_two_calls, "close"),
        ENGINE: Method(by_engine, "stop"),
        "elastic, EOS closes": Method(by_engine, "close"),
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
    for same in filter(None, greedy.values()):  # a curve has methods of one rule only
        first, *others = same.values()
        assert all(other == first for other in others), f"greedy completions differ: {list(same)}"


def case(
    device: Device,
    size: str,
    rows: int,
    lengths: str = "budgets",
    group: int = 1,
    multiple: int = 4,
    names: Sequence[str] | None = None,
) -> Case:
    """Args:
    rows: decoded together.
    group: rows that share a prompt.
    multiple: requests, as a multiple of the rows.
    names: methods, or None for all.
    """
    model = build(size, lengths == "natural").to(device.torch)
    vocab = model.config.vocab_size
    found = methods(model, rows)
    if lengths == "natural":
        del found["the same, sorted by budget"]  # all budgets are the same
    found = {name: method for name, method in found.items() if names is None or name in names}
    requests = {
        on_eos: make_requests(multiple * rows, vocab, lengths, group, on_eos) for on_eos in ("stop", "close")
    }
    few = min(rows, 8)
    shape = f"{size} rows={rows} requests={multiple * rows} {lengths}" + (
        f" group={group}" if group > 1 else ""
    )
    same_work = partial(check, found, few, vocab, lengths, group)
    work = Work(device, model, rows, found, requests, exact=lengths == "budgets")
    return of_methods(work, shape, same_work)


def by_budget(device: Device, size: str, rows: int, thinking: int, names: Sequence[str]) -> Case:
    """Every row thinks for exactly `thinking` tokens and has a solution of 16."""
    model = build(size, likely_ends=False).to(device.torch)
    every = methods(model, rows)
    found = {name: every[name] for name in names}
    prompts = make_requests(rows, model.config.vocab_size, "budgets", 1, "stop")
    requests = {
        on_eos: [Request(r.prompt, Budget(thinking, 16, on_eos=on_eos)) for r in prompts]
        for on_eos in ("stop", "close")
    }
    shape = f"{size} rows={rows} thinking={thinking} solution=16"
    return of_methods(Work(device, model, rows, found, requests, exact=True), shape)


@dataclass
class Work:
    """What the methods are measured on.

    Attributes:
        rows: decoded together.
        requests: by the rule for EOS while thinking.
        exact: rows have exactly the lengths that their budgets set.
    """

    device: Device
    model: Any
    rows: int
    found: dict[str, Method]
    requests: dict[str, list[Request]]
    exact: bool

    def most(self, on_eos: str = "stop") -> list[int]:
        """Tokens that each request's budget allows."""
        return [request.budget.max_tokens(MARKERS) or 0 for request in self.requests[on_eos]]


def of_methods(work: Work, shape: str, same_work: Callable[[], None] | None = None) -> Case:
    """Args:
    same_work: compares the methods with each other; called once.
    """
    made_of: dict[str, list[int]] = {name: [] for name in work.found}
    parts_of: dict[str, list[tuple[float, float]]] = {name: [] for name in work.found}  # steps, share outside
    items = sum(work.most())

    def timed(name: str) -> Callable[[], Callable[[int], list[list[int]]]]:
        method = work.found[name]

        def call(number: int) -> list[list[int]]:
            return method.run(work.requests[method.on_eos], max(number, 0), SAMPLING)

        def run(number: int) -> list[list[int]]:
            if work.device.is_cuda:  # whose steps are no calls of the model, and whose time is elsewhere
                made = call(number)
            else:
                clock = time.process_time if work.device.counts == "cpu" else time.perf_counter
                begin = clock()
                with watched(work.model, clock) as forwards:
                    made = call(number)
                share = 1 - forwards.seconds / max(clock() - begin, 1e-9)
                parts_of[name].append((forwards.steps * items / sum(map(len, made)), share))
            made_of[name].append(sum(map(len, made)))
            return made

        return lambda: run

    compared: list[bool] = []

    def check_of(on_eos: str) -> Callable[[list[list[int]]], None]:
        def check_completions(made: list[list[int]]) -> None:
            if same_work is not None and not compared:
                same_work()
                compared.append(True)
            for most, tokens in zip(work.most(on_eos), made, strict=True):
                assert 0 < len(tokens) <= most, f"{len(tokens)} tokens under a budget of {most}"
                assert not work.exact or len(tokens) == most, f"expected {most} tokens, got {len(tokens)}"

        return check_completions

    def parts(name: str, _: Any) -> Mapping[str, float]:
        if not parts_of.get(name):
            return {}
        steps, shares = zip(*parts_of[name], strict=True)
        return {"steps": statistics.median(steps), "outside": statistics.median(shares)}

    variants = [
        Variant(name, timed(name), check_of(method.on_eos), needs=("transformers",))
        for name, method in work.found.items()
    ]
    like = torch.zeros(weight_bytes(work.model) // 4, device=work.device.torch)
    prompts = [len(request.prompt) for request in work.requests["stop"]]
    return Case(
        "rollout",
        shape,
        "float32",
        [*variants, ceiling(work.device, like)],
        bytes=call_bytes(work.model, work.rows, prompts, work.most()),
        baseline=BASELINE,
        items=items,
        work=made_of,
        extra=parts,
    )
