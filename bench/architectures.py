"""What every architecture of transformers can do here: `python -m bench.architectures`.

Each is built small, with random weights large enough that attention matters, and taken through what a run
does first: an engine is built on it, which proves decoding or refuses, and `packs` says how its rows train or
refuses too. Then both answers are held to the model's plain forward: greedy rows of different lengths decoded
together, and the gradient of packed or padded rows. Where both are there, a first update's policy is held to
the one that drew its tokens (`bench.exactness`). The table stands in docs/models.md.
"""

import argparse
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bench import exactness
from elastic import Budget, RolloutEngine, Sampling
from elastic.models.tiny.vocabulary import SPECIAL, build_tokenizer
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_logits
from elastic.train.update.proof import packs

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- architectures -->", "<!-- end of architectures -->"
VOCAB, HIDDEN, LAYERS, HEADS, CONTEXT = 96, 32, 2, 4, 256
WEIGHT_STD = 0.15
MOST_GRADIENT_ERROR = 1e-3  # of its largest entry; a completion that sees another makes 0.4 and more
NEW_TOKENS = 6
WINDOW = 8  # for rollouts: shorter than a row, or nothing would be outside
PROMPTS = ([51, 52, 53], [61, 62, 63, 64, 65, 66, 67, 68, 69, 70], [42, 52], [90, 45, 33, 61])
COMPLETIONS = ([31, 32, 33, 34, 35], [41, 42, 43], [51, 52, 53, 54])

# A configuration takes those of these that it has.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCAB),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "emb_dim"), HIDDEN),
    "word_embed_proj_dim": HIDDEN,
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "global_head_dim", "d_kv", "rotary_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "d_inner", "n_inner"), 48),
    **dict.fromkeys(("ffn_hidden_size", "dim_ff", "d_ff"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), CONTEXT),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    "expert_ffn_hidden_size": 16,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"), 2
    ),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
}
ALL_HEADS = {"num_key_value_heads": HEADS}
LATENT = ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa")
# What a configuration needs else; words behind the model type make it a variant.
OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys((*LATENT, "longcat_flash", "minicpm3", "youtu"), ALL_HEADS),
    "bert as decoder": {"is_decoder": True},
    "falcon with alibi": {"alibi": True},
    "gemma2 without windows": {"layer_types": ["full_attention"] * LAYERS},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 32},
    "gpt_neo without windows": {"attention_types": [[["global"], LAYERS]]},
    "mistral without windows": {"sliding_window": None},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
NOT_BUILT = {
    "same class as another type": "gpt-sw3 internlm3 iquestcoder",
    "multimodal, or of another modality; several have a text type of their own in the table": (
        "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_assistant gemma4_unified gemma4_unified_assistant "
        "git got_ocr2 llama4 mllama moss_transcribe_diarize musicgen musicgen_melody phi4_multimodal qwen3_5 "
        "qwen3_5_moe qwen4_exp trocr whisper"
    ),
    "not small with these settings": (
        "bamba blt cohere_compass_text cpmant dbrx dots3_note_text falcon_h1 gemma4_text gemma4_unified_text "
        "granitemoehybrid kimi_linear lfm2_moe mamba2 nemotron_h prophetnet reformer roc_bert xlnet xlstm "
        "zamba zamba2"
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    name: model type, and the variant.
    rollouts: "yes", or why an engine refuses.
    training: "packed", "padded: " and why, or why not at all.
    wrong: what was let through although it differs from the plain forward; empty for nothing.
    """

    name: str
    rollouts: str
    training: str
    wrong: str = ""


def names() -> list[str]:
    """Every architecture and variant of the table, in its order."""
    left_out = {name for group in NOT_BUILT.values() for name in group.split()}
    variants = [name for name in OPTIONS if " " in name]
    return sorted([*set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - left_out, *variants])


def build(name: str, window: int | None = None) -> Any:
    """A small random model in float32, evaluation mode; the same weights each time.

    Args:
        name: a model type, or a variant of one listed in `OPTIONS`.
        window: in place of the sliding window, where its configuration has one.
    """
    config_class = CONFIG_MAPPING[name.split(" ")[0]]
    plain = config_class()
    given = {key: value for key, value in SMALL.items() if _settable(plain, key)}
    options = OPTIONS.get(name, {})
    if window and isinstance(options.get("sliding_window", getattr(plain, "sliding_window", None)), int):
        given["sliding_window"] = window
    config = config_class(**given | options)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, WEIGHT_STD)
    return model


def _settable(config: Any, key: str) -> bool:
    of_class = getattr(type(config), key, None)
    return hasattr(config, key) and not (isinstance(of_class, property) and of_class.fset is None)


def outcome(name: str, precisions: Iterable[str] = ("float32",)) -> Outcome:
    """Takes one architecture through all of it.

    Args:
        name: of the architecture.
        precisions: of `exactness.PRECISIONS`, those in which updates are held to rollouts.
    """
    model = build(name, WINDOW)
    wrong = []
    rollouts = "yes"
    try:
        engine = RolloutEngine(model, build_tokenizer(), max_rows=len(PROMPTS), progress=False)
    except ValueError as error:
        rollouts = f"refused: {short(str(error))}"
    else:
        if (found := decoded(engine)) != (alone := greedy(model)):
            wrong.append(f"decodes {found}, alone {alone}")
    model = build(name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            packs(model)
        except ValueError as error:
            return Outcome(name, rollouts, f"refused: {short(str(error))}", "; ".join(wrong))
    padded = [str(one.message) for one in said if "rows are padded" in str(one.message)]
    if (error := gradient_error(model)) > MOST_GRADIENT_ERROR:
        wrong.append(f"gradient off by {error:.2g}")
    if rollouts == "yes":
        wrong += [found for precision in precisions if (found := inexact(name, precision))]
    return Outcome(name, rollouts, f"padded: {short(padded[0])}" if padded else "packed", "; ".join(wrong))


def inexact(name: str, precision: str) -> str:
    """How a first update's policy differs from the one that drew its tokens; empty for rounding alone."""
    model = build(name, exactness.WINDOW)
    try:
        metrics = exactness.first_update(model, exactness.PRECISIONS[precision])
    except ValueError as error:
        chosen = exactness.PRECISIONS[precision]
        sixteen = chosen.mixed_precision != "no" or chosen.weights != torch.float32
        if name in exactness.NOT_IN_16_BITS and sixteen:
            return ""
        if name in exactness.NOT_WITH_LORA and chosen.adapter != "none":
            return ""
        return f"{precision}: refused: {short(str(error))}"
    return exactness.wrong(name, precision, metrics)


def short(message: str) -> str:
    """What a message says, without the model's name and without numbers, which another machine may round."""
    for head in (r"^model: \S+ cannot be decoded in slots: ", r"^model: .* cannot be trained: ", r"^model: "):
        message = re.sub(head, "", message)
    message = re.sub(r"^\S+ \(\S+\): |^\S+ (?=has|keeps)|^\S+(?=\.forward)", "", message)
    message = message.split("; its rows")[0].split("; its configuration")[0].split("; the slot cache")[0]
    message = re.sub(r"its forward pass fails \(.*\)$", "its forward pass fails", message)
    return re.sub(r" \(\d+ and \d+ tokens\) differ by .*| differ by .*", " differ", message).removeprefix(".")


def decoded(engine: RolloutEngine) -> list[list[int]]:
    """What the rows get together in slots, as far as it is ordinary text."""
    batch = engine.generate(
        PROMPTS, Budget.unlimited(), sampling=Sampling(temperature=0), max_new_tokens=NEW_TOKENS
    )
    return [_text(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths, strict=True)]


@torch.no_grad()
def greedy(model: Any) -> list[list[int]]:
    """What each row gets alone, from whole forward passes."""
    rows = []
    for prompt in PROMPTS:
        row = list(prompt)
        for _ in range(NEW_TOKENS):
            row.append(int(model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
        rows.append(_text(row[len(prompt) :]))
    return rows


def _text(row: list[int]) -> list[int]:
    """Up to the first token that has a meaning for budgets."""
    return row[: next((place for place, token in enumerate(row) if token < len(SPECIAL)), len(row))]


def gradient_error(model: Any) -> float:
    """Largest difference of the gradient from that of rows alone, as a share of its largest entry."""
    completions = [torch.tensor(ids) for ids in COMPLETIONS]
    prompt_of = [0, 0, 1]
    packed = pack(PROMPTS, completions, prompt_of)
    with tree_attention_of(model):
        got = _gradient(model, [packed_logits(model, packed)], [packed.targets])
    alone = []
    for completion, prompt in zip(completions, prompt_of, strict=True):
        row = torch.tensor([[*PROMPTS[prompt], *completion.tolist()]])
        alone.append(model(input_ids=row, use_cache=False).logits[0, len(PROMPTS[prompt]) - 1 : -1])
    expected = _gradient(model, alone, completions)
    return float((got - expected).abs().max() / expected.abs().max())


def _gradient(model: Any, logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    model.zero_grad()
    for part, target in zip(logits, targets, strict=True):
        part.log_softmax(-1).gather(1, target[:, None]).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def section(found: Iterable[Outcome]) -> str:
    """What stands between the marks of docs/models.md."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in found:
        groups.setdefault((one.rollouts, one.training), []).append(f"`{one.name}`")
    lines = ["| rollouts | training | architectures |", "|---|---|---|"]
    for (rollouts, training), listed in sorted(
        groups.items(), key=lambda item: (item[0][0] != "yes", item[0])
    ):
        lines.append(f"| {rollouts} | {training} | {', '.join(listed)} |")
    count = sum(map(len, groups.values()))
    rest = "\n".join(f"- {why}: {names}" for why, names in NOT_BUILT.items())
    head = f"transformers {transformers.__version__}, {count} architectures:"
    return f"{BEGIN}\n{head}\n\n" + "\n".join(lines) + f"\n\nNot tried:\n\n{rest}\n{END}"


def committed(page: str) -> str:
    """The section of a page, marks included.

    Raises:
        ValueError: the page has no marks.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"architectures: docs/models.md: expected the marks {BEGIN} and {END}")
    return BEGIN + page.split(BEGIN)[1].split(END)[0] + END


def version_of(part: str) -> str:
    """The transformers version that a section was made with."""
    return "".join(re.findall(r"^transformers (\S+),", part, re.MULTILINE))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail where docs/models.md is out of date")
    parser.add_argument("--write", action="store_true", help="update docs/models.md")
    parser.add_argument("names", nargs="*", help="only these, without a table")
    args = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    found = []
    for name in args.names or names():
        found.append(outcome(name, exactness.PRECISIONS))
        print(f"{name}: rollouts {found[-1].rollouts}; training {found[-1].training}", flush=True)
    if wrong := [f"{one.name}: {one.wrong}" for one in found if one.wrong]:
        sys.exit("\n".join(["let through, and wrong:", *wrong]))
    if args.names:
        return
    page = PAGE.read_text()
    if args.write:
        PAGE.write_text(page.replace(committed(page), section(found)))
    elif args.check and committed(page) != section(found):
        sys.exit("docs/models.md is out of date; run: python -m bench.architectures --write")


if __name__ == "__main__":
    main()
