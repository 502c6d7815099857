"""The one harness: methods x budgets x sets, sampled, graded and kept."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elastic.evaluate.engines import Engine, engine_name
from elastic.evaluate.methods import BudgetPair, PolicyOptions, budget_pairs, get_method
from elastic.evaluate.run.answer import answer
from elastic.evaluate.run.checks import check_request, check_tasks
from elastic.evaluate.run.folder import Folder, earlier_chunk_rows
from elastic.evaluate.run.plan import Chunk, chunks_of, tasks_of
from elastic.evaluate.run.problems import write_problems
from elastic.evaluate.run.progress import Progress
from elastic.evaluate.run.result import write_result
from elastic.evaluate.run.sets import EvalSet
from elastic.evaluate.run.settings import model_facts, token_facts, versions
from elastic.evaluate.sample import Sample
from elastic.sampling import Sampling

_CHUNKS_OF_SLOTS = 4  # a chunk's rows are so many times those decoded together


@dataclass(frozen=True, eq=False)
class _Run:
    """A checked evaluation."""

    engine: Engine
    chunks: list[Chunk]
    sampling: Sampling
    max_new_tokens: int | None
    texts: bool

    def answers(self, first: int, progress: Progress) -> Iterator[list[Sample]]:
        """The samples of each chunk from one on."""
        for chunk in self.chunks[first:]:
            yield answer(self.engine, chunk, self.sampling, self.max_new_tokens, texts=self.texts)
            progress.add(chunk.completions)

    def completions(self, chunks: int | None = None) -> int:
        """Of the first chunks, all by default."""
        return sum(chunk.completions for chunk in self.chunks[:chunks])


def evaluate(
    engine: Engine,
    sets: EvalSet | Sequence[EvalSet],
    methods: Sequence[str],
    budgets: str | Sequence[BudgetPair],
    *,
    samples: int = 1,
    sampling: Sampling | None = None,
    options: PolicyOptions | None = None,
    max_new_tokens: int | None = None,
    out: str | os.PathLike | None = None,
    texts: bool = True,
    chunk_rows: int | None = None,
    ks: Sequence[int] = (1,),
    progress: bool | None = None,
) -> list[Sample]:
    """Evaluates every method at every budget on every set, `samples` answers per problem.

    Everything is checked before the first token is drawn. Problem i's sample j has the same seed under every
    method and budget, so rows differ by method and budget, not by chance. What several methods share (without
    limits, most of them) is decoded once.

    Args:
        engine: holds the model; all methods run on it.
        sets: what is put to the model.
        methods: names in `elastic.evaluate.methods.METHODS`.
        budgets: (t, s) pairs in sampled tokens, (None, None) for no limit; or their notation, see
            `elastic.evaluate.methods.budget_pairs`.
        samples: answers per problem.
        sampling: how tokens are drawn; `Sampling(seed=0)` by default. Without a seed one is drawn.
        options: how thinking ends; each method reads its own.
        max_new_tokens: ends completions without a bounded budget; by default the context does.
        out: folder for `samples.jsonl`, `problems.jsonl`, `settings.json` and, at the end, `eval.json`. A
            folder with samples of the same settings is gone on with. None keeps the samples in memory alone.
        texts: whether samples hold the completions' texts (`Sample.segments`).
        chunk_rows: completions decoded and written in one go, the most that a kill loses; by default those
            of `out`'s first call, else four times `engine.max_rows`.
        ks: the k of pass@k in `eval.json`.
        progress: False shows nothing; else a bar on a terminal, or a line now and then.

    Returns:
        All samples, also those of earlier calls, set by set, budget by budget, method by method; the samples
        of methods that share completions one behind the other. With `out` they are without texts, which
        `elastic.evaluate.read_samples` reads.

    Raises:
        ValueError: bad arguments, before anything is decoded: unknown methods, illegal budgets, options that
            no method reads, prompts that do not fit the context, a folder with other settings; later: a
            reward other than 0, 1 and None.
        OSError: `out` cannot be written.
        MemoryError: as of the engine; `out` can be gone on with.
    """
    sampling = Sampling(seed=0) if sampling is None else sampling
    if out is not None and sampling.seed is None:
        raise ValueError("sampling: expected one with a seed, so that a run into out can go on, got none")
    options = options or PolicyOptions()
    listed = [sets] if isinstance(sets, EvalSet) else list(sets)
    chosen = [get_method(name) for name in methods]
    pairs = budget_pairs(budgets) if isinstance(budgets, str) else list(budgets)
    if chunk_rows is None:
        earlier = None if out is None else earlier_chunk_rows(out)
        chunk_rows = engine.max_rows * _CHUNKS_OF_SLOTS if earlier is None else earlier
    check_request(listed, chosen, pairs, options, {"samples": samples, "chunk_rows": chunk_rows}, ks)
    tasks = tasks_of(listed, chosen, pairs, options)
    check_tasks(engine, tasks, max_new_tokens)
    run = _Run(engine, chunks_of(tasks, samples, chunk_rows), sampling.seeded(), max_new_tokens, texts)
    if out is None:
        with Progress(run.completions(), 0, progress) as shown:
            return [sample for found in run.answers(0, shown) for sample in found]
    settings = {
        "model": model_facts(engine),
        "tokens": token_facts(engine),
        "engine": engine_name(engine),
        "chunk_rows": chunk_rows,
        "data": [data.facts() for data in listed],
        "methods": list(methods),
        "budgets": [list(pair) for pair in pairs],
        "options": asdict(options),
        "samples": samples,
        "sampling": asdict(run.sampling),
        "max_new_tokens": max_new_tokens,
        "texts": texts,
        "versions": versions(),
    }
    return _into_folder(run, out, settings, listed, ks, progress)


def _into_folder(
    run: _Run,
    out: str | os.PathLike,
    settings: dict[str, Any],
    sets: Sequence[EvalSet],
    ks: Sequence[int],
    shown: bool | None,
) -> list[Sample]:
    started = time.monotonic()
    with Folder(out, settings, run.chunks) as folder:
        write_problems(folder.path, sets)
        before, total = run.completions(folder.done), run.completions()
        if before and shown is not False:
            print(
                f"elastic: eval: going on with {out}: {before} of {total} answers are there", file=sys.stderr
            )
        try:
            with Progress(total, before, shown) as progress:
                for found in run.answers(folder.done, progress):
                    folder.append(found)
        except (KeyboardInterrupt, MemoryError):
            kept = run.completions(folder.done)
            print(
                f"elastic: eval: {kept} of {total} answers are in {out}; the same call goes on from there",
                file=sys.stderr,
            )
            raise
        seconds = time.monotonic() - started if before < total else None
        write_result(folder.path, settings, folder.samples, ks, seconds)
        return folder.samples
