"""Mixed requests over HTTP, by clients that leave at random: `python -m tests.integrations.vllm.load`.

Requests have budgets of all kinds or none, a few are bad. Every answer is read back under its budget;
`replay` refuses tokens that no row can have written. Some requests are asked before and behind the others and
must get the same tokens: what a request leaves behind would show. The memory of the processes is taken
all the while.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elastic import Budget, load_model, replay
from elastic.budget import FinishReason
from elastic.integrations.request_values import RequestBudget, values_of
from elastic.rollout.plan.default_markers import default_markers
from tests.integrations.vllm.server import Server, serving
from tests.integrations.vllm.sums import SUMS

COMPLETIONS = "/v1/completions"
CLIENTS = 24
# Few blocks, so that requests are preempted all the time.
OPTIONS = ("--max-model-len", "256", "--max-num-seqs", "16", "--num-gpu-blocks-override", "40")
BAD: tuple[dict[str, Any], ...] = (
    {"thinking_budget": -1.5},
    {"thinking_bugdet": 5},
    {"thinking_budget": 9, "closing": "so"},
    {"thinking_budget": 5000},
    {"thinking_budget": 9, "end_markers": ["nothing"]},
)


@dataclass
class Report:
    """What has happened.

    Attributes:
        counts: of finished, left and refused requests, those cut, and of errors.
        errors: the first few.
        memory_mib: pairs of seconds and resident memory of the server's processes.
    """

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)

    def fail(self, error: str) -> None:
        self.counts["errors"] += 1
        if len(self.errors) < 10:
            self.errors.append(error)


class Load:
    """Clients of one server.

    Args:
        server: it serves the embedded model.
        tokenizer: of the model.
        seed: of what the clients do.
        plain: requests without budgets, to see what a server does without them.
    """

    def __init__(self, server: Server, tokenizer: Any, seed: int, plain: bool = False) -> None:
        self.server, self.tokenizer, self.seed, self.plain = server, tokenizer, seed, plain
        self.markers = default_markers(tokenizer)
        self.report = Report()

    def run(self, seconds: float) -> Report:
        """Asks for so long, and looks whether the probes' answers are still the same."""
        before = self._probes()
        start, stop = time.monotonic(), threading.Event()
        threads = [threading.Thread(target=self._client, args=(i, stop)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while time.monotonic() < start + seconds:
            self.report.memory_mib.append((time.monotonic() - start, resident_mib(self.server.process.pid)))
            stop.wait(min(2.0, seconds / 10))
        stop.set()
        for thread in threads:
            thread.join()
        if self._probes() != before:
            self.report.fail("the same requests got other tokens behind the load than before it")
        return self.report

    def _client(self, number: int, stop: threading.Event) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while not stop.is_set():
            try:
                self._request(chance)
            except Exception as error:  # a client's report, whatever went wrong
                self.report.fail(repr(error))

    def _request(self, chance: random.Random) -> None:
        if chance.random() < 0.1 and not self.plain:
            status, _ = self.server.post(COMPLETIONS, prompt="a 1 b + 1 = ?", vllm_xargs=chance.choice(BAD))
            self.report.counts["refused"] += 1
            if status != 400:
                self.report.fail(f"a bad request got status {status}")
            return
        budget = None if self.plain or chance.random() < 0.2 else some_budget(chance)
        body = self._body(budget, chance)
        patience = chance.randint(1, 12) if chance.random() < 0.3 else None
        ids: list[int] = []
        parts = self.server.stream(COMPLETIONS, **body)
        for seen, part in enumerate(parts):
            ids += [token for choice in part["choices"] for token in choice["token_ids"] or ()]
            if seen == patience:
                break
        parts.close()
        self.report.counts["finished" if patience is None else "left"] += 1
        if budget is not None:
            self._read(ids, budget)

    def _body(self, budget: Budget | None, chance: random.Random) -> dict[str, Any]:
        text = " ".join(["so"] * chance.randrange(40)) + f" {chance.choice(SUMS)} <think>"
        values = {} if budget is None else {"vllm_xargs": values_of(RequestBudget(budget))}
        options = {"temperature": chance.choice((0.0, 0.7, 1.5)), "max_tokens": 120}
        return {"prompt": text, "return_token_ids": True, **options, **values}

    def _read(self, ids: list[int], budget: Budget) -> None:
        """Checks an answer, or its beginning, against its budget."""
        if not ids:
            return
        eos = self.tokenizer.eos_token_id
        cut = ids[:-1] if ids[-1] == eos else ids
        try:
            read = replay([cut], budget, self.markers, eos_ids=[eos])
            # No budget ended it: the EOS is the row's own.
            if ids != cut and read.finish_reason[0] == FinishReason.LENGTH:
                read = replay([ids], budget, self.markers, eos_ids=[eos])
        except ValueError as error:
            self.report.fail(f"{budget}: {error}: {ids}")
            return
        self.report.counts["cut"] += int(read.thinking_cut[0])

    def _probes(self) -> list[Any]:
        chance = random.Random(self.seed)
        bodies = [self._body(some_budget(chance), chance) | {"temperature": 0.0} for _ in range(12)]
        return [self.server.post(COMPLETIONS, **body)[1]["choices"][0]["token_ids"] for body in bodies]


def some_budget(chance: random.Random) -> Budget:
    """A budget whose rows can be read back without sources: no text stands in for an EOS or an early end."""
    thinking, solution = chance.randint(0, 50), chance.randint(1, 20)
    kind = chance.randrange(6)
    if kind == 0:
        return Budget(thinking, solution, closing="wait ok </think> so answer is", on_eos="stop")
    if kind == 1:
        return Budget(thinking + 1, solution, grace=chance.randint(1, 6), boundary=chance.choice((".", "=")))
    if kind == 2:
        return Budget(thinking + 9, solution, notices=((chance.randint(1, 8), "have have"),), on_eos="stop")
    if kind == 3:
        return Budget(thinking, None, total=thinking + solution)
    if kind == 4:
        return Budget(thinking, solution, on_reopen="forbid", on_reclose="forbid")
    return Budget(thinking, solution)


def resident_mib(leader: int) -> float:
    """Resident memory of the processes of a group, MiB."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == leader:  # its process group
            pages += int(fields[21])
    return pages * 4096 / 2**20


def main() -> None:
    """Runs the load and prints its report; status 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="requests without budgets")
    arguments = parser.parse_args()
    parts = load_model("tiny")
    with tempfile.TemporaryDirectory() as name:
        for part in parts:
            part.save_pretrained(name)
        with serving(Path(name), Path(name) / "log", *OPTIONS) as server:
            report = Load(server, parts[1], arguments.seed, arguments.plain).run(60 * arguments.minutes)
    print(", ".join(f"{count:,} {what}" for what, count in sorted(report.counts.items())))
    shown = report.memory_mib[:: max(1, len(report.memory_mib) // 10)]
    print("resident MiB:", ", ".join(f"{mib:,.0f} at {seconds:.0f} s" for seconds, mib in shown))
    print("\n".join(report.errors))
    raise SystemExit(bool(report.errors))


if __name__ == "__main__":
    main()
