"""Trains the embedded model from scratch: ``python -m elastic.models.tiny.pretrain --out DIR``.

The committed checkpoint is this script's result with its default arguments. The same arguments, torch
version and machine give the same weights, bit for bit.
"""

import argparse
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from elastic.data.files import write_checksums
from elastic.data.sums import BOS, END, EOS, MAX_OPERATIONS, MIN_OPERATIONS, draw
from elastic.models.quiet import quiet_transformers
from elastic.models.tiny.traces import cut_trace, trace
from elastic.models.tiny.vocabulary import IDS, MAX_LENGTH, PAD, build_tokenizer

STEPS = 2000
ROWS = 32
LEARNING_RATE = 2e-3
CUT_SHARE = 0.4  # of the rows: thoughts stopped from outside

_GROWTH_SHARE = 0.35  # of the steps
_FIRST_MOST_OPERATIONS = 3
_POOL = 8  # batches drawn and sorted by length together
_IGNORED = -100

Row = tuple[list[int], list[int]]
Batch = tuple[torch.Tensor, torch.Tensor]
Model = TypeVar("Model", bound=PreTrainedModel)


def config() -> Qwen3Config:
    """A standard Qwen3 of 0.66 million parameters.

    Not Qwen2: ``AutoTokenizer`` gives that model type a byte-level tokenizer whatever the directory declares.
    """
    return Qwen3Config(
        vocab_size=len(IDS),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=IDS[BOS],
        eos_token_id=IDS[EOS],
        pad_token_id=IDS[PAD],
    )


def row(rng: random.Random, most_operations: int, ask: Callable[[str], str] | None = None) -> Row:
    """One (ids, labels); the prompt, and an end marker that a cut imposed, have no label.

    Args:
        rng: the source of all randomness.
        most_operations: of the sum.
        ask: changes the prompt; None leaves it as it is.
    """
    item = draw(rng, rng.randint(MIN_OPERATIONS, most_operations))
    prompt = (item.prompt if ask is None else ask(item.prompt)).split()
    example = cut_trace(rng, item) if rng.random() < CUT_SHARE else trace(rng, item)
    ids = [IDS[word] for word in (*prompt, *example.thinking, END, *example.solution)]
    labels = [_IGNORED] * len(prompt) + ids[len(prompt) :]
    if example.cut:
        labels[len(prompt) + len(example.thinking)] = _IGNORED
    return ids, labels


def batches(rng: random.Random, steps: int, rows: int) -> Iterator[Batch]:
    """(ids [B, T] int64, labels [B, T] int64) of each step; the sums grow longer as `curriculum` says."""
    return sorted_batches(rng, lambda step: row(rng, curriculum(step, steps)), steps, rows)


def sorted_batches(
    rng: random.Random, draw_row: Callable[[int], Row], steps: int, rows: int
) -> Iterator[Batch]:
    """(ids [B, T] int64, labels [B, T] int64) of each step, padded on the right.

    Rows of about the same length go together, which saves a third of the padding; the order of the batches
    stays random.

    Args:
        rng: shuffles the batches.
        draw_row: a row for the first step of a pool.
        steps: how many batches.
        rows: of a batch.
    """
    for start in range(0, steps, _POOL):
        pool = sorted((draw_row(start) for _ in range(_POOL * rows)), key=lambda drawn: len(drawn[0]))
        chunks = [pool[first : first + rows] for first in range(0, len(pool), rows)]
        rng.shuffle(chunks)
        yield from (_padded(chunk) for chunk in chunks[: steps - start])


def _padded(drawn: list[Row]) -> Batch:
    length = max(len(ids) for ids, _ in drawn)
    ids = torch.full((len(drawn), length), IDS[PAD])
    labels = torch.full((len(drawn), length), _IGNORED)
    for index, (row_ids, row_labels) in enumerate(drawn):
        ids[index, : len(row_ids)] = torch.tensor(row_ids)
        labels[index, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels


def curriculum(step: int, steps: int) -> int:
    """Most operations of a sum at this step: short sums first, all lengths from ``_GROWTH_SHARE`` on.

    Looking up the next operand and adding two digits are learnt several times faster, in fewer and shorter
    steps, from short sums.
    """
    grown = min(1.0, step / max(1.0, _GROWTH_SHARE * steps))
    return _FIRST_MOST_OPERATIONS + int(grown * (MAX_OPERATIONS - _FIRST_MOST_OPERATIONS))


def pretrain(
    steps: int = STEPS, seed: int = 0, *, rows_per_batch: int = ROWS, progress: bool = True
) -> Qwen3ForCausalLM:
    """Trains a fresh model by next-token prediction on the task's traces.

    Args:
        steps: optimizer steps, at least 1.
        seed: of the weights and of the data.
        rows_per_batch: traces per step.
        progress: whether to show a progress bar.

    Raises:
        ValueError: ``steps`` or ``rows_per_batch`` below 1.
    """
    if steps < 1 or rows_per_batch < 1:
        raise ValueError(
            f"pretrain: steps and rows_per_batch must be at least 1, got {steps} and {rows_per_batch}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config())
    data = batches(random.Random(f"pretrain-{seed}"), steps, rows_per_batch)
    return fit(model, data, steps, LEARNING_RATE, progress)


def fit(model: Model, data: Iterator[Batch], steps: int, learning_rate: float, progress: bool) -> Model:
    """Trains a model in place on batches of traces, the rate rising, then falling to 0; returns the model."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps + 1, pct_start=0.1)
    model.train()
    with tqdm(total=steps, desc="pretraining", unit="step", disable=not progress, mininterval=2) as bar:
        for step, (ids, labels) in enumerate(data):
            # Rows are padded on the right and attention is causal, so no real token sees a pad.
            loss = model(input_ids=ids, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
    return model.eval()


def save(model: PreTrainedModel, out: Path) -> None:
    """Writes model, tokenizer and checksums to ``out``, which is replaced only when everything is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with quiet_transformers():
            model.save_pretrained(partial)
            build_tokenizer().save_pretrained(partial)
        write_checksums(partial)
        partial.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m elastic.models.tiny.pretrain", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the checkpoint; replaced if it exists"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; they change the last bits of the weights"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    save(pretrain(options.steps, options.seed), options.out)


if __name__ == "__main__":
    main()
