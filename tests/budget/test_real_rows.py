"""Rows on real vocabularies whose markers are ordinary text: opened, ended and cut in every spelling."""

import pytest
import torch

from elastic import Budget, Markers, Phase, ops
from tests.budget.helpers import compiled, run
from tests.budget.vocabularies import needs_shared, real

CUTS = range(1, 14)
CLOSING = "\nTime is up.\n{end}\n\nAnswer:"


@needs_shared
@pytest.mark.filterwarnings("ignore::elastic.budget.markers.MarkerWarning")
@pytest.mark.parametrize("pair", [("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>")])
@pytest.mark.parametrize("name", ["qwen2.5", "mistral_nemo"])
def test_rows_are_opened_ended_and_cut_in_every_spelling_of_a_real_vocabulary(name, pair):
    tokenizer, (start, end) = real(name), pair
    markers = Markers.from_tokenizer(tokenizer, start, end)
    machine, _ = compiled([Budget(cut, 99, closing=CLOSING) for cut in CUTS], markers, tokenizer, ())

    def play(text, cut, phase):
        state = ops.new_state(
            torch.tensor([cut - 1]), machine, phase=torch.tensor([int(phase)], dtype=torch.int32)
        )
        out = run(machine, tokenizer.encode(text, add_special_tokens=False), state=state)
        return out, tokenizer.decode(out.tokens)

    for before in ("", " ", "\n", "  ", "\n\n", "\t"):  # white space and the marker are free
        out, _ = play(before + start + " so and so on", 3, Phase.OPENING)
        opened = out.phase.index(Phase.THINKING)
        assert set(out.phase[:opened]) <= {Phase.OPENING}, before
        assert (out.cut, out.thinking) == (True, 3), before

    for before in ("x", "x ", "x.", "(", "**"):  # a marker behind text is text
        out, text = play(before + start + " so", 2, Phase.OPENING)
        assert set(out.phase) <= {Phase.OPENING, Phase.SOLUTION}, before
        assert text == before + start + " so"

    for before in ("x", "x ", "x.", "x\n", "x.\n\n", "(x)"):
        for cut in CUTS:  # wherever the cut falls, the end marker stands there once, and F's tail behind it
            out, text = play(before + end + "\n\nThe answer is 4" * 6, cut, Phase.THINKING)
            assert text.count(end) == 1, (before, cut, text)
            assert not out.cut or text.partition(end)[2].startswith("\n\nAnswer:"), (before, cut, text)
        assert not out.cut  # the last one had room for the natural end


@needs_shared
@pytest.mark.filterwarnings("ignore::elastic.budget.markers.MarkerWarning")
@pytest.mark.parametrize("name", ["qwen2.5", "mistral_nemo", "gpt_oss"])
def test_markers_that_touch_share_a_token_and_are_both_seen(name):
    """ "></" is one token of these vocabularies: it ends the start marker and begins the end marker."""
    tokenizer = real(name)
    markers = Markers.from_tokenizer(tokenizer)
    ids = tokenizer.encode("<think></think>The answer is 4", add_special_tokens=False)
    for thinking, cut in ((9, False), (1, True), (0, True)):
        machine, _ = compiled([Budget(thinking, 99)], markers, tokenizer, ())
        state = ops.new_state(1, machine, starts_in_thinking=False)
        out = run(machine, ids, state=state)
        assert tokenizer.decode(out.tokens).startswith("<think></think>"), thinking
        assert tokenizer.decode(out.tokens).count("</think>") == 1, thinking
        assert (out.thinking, out.cut) == (0, cut), thinking
