"""Markers in real vocabularies: every one is found, wherever it stands, and nothing else is."""

import random
import string
from functools import cache

import pytest

from elastic import Markers
from tests.budget.vocabularies import REAL, math_texts, needs_shared, places, real

pytestmark = [needs_shared, pytest.mark.filterwarnings("ignore::elastic.budget.markers.MarkerWarning")]

PAIRS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("◁think▷", "◁/think▷"),
    ("<think>\n", "\n</think>\n\n"),
]
BOTH = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].strip())
EACH = pytest.mark.parametrize("name", REAL)
# Not those of elastic/budget/spelling.py: whatever two characters or runs of them may stand beside a marker.
CHARACTERS = [
    *string.printable.strip(),
    " ",
    "\n",
    "\t",
    "\r\n",
    "ß",
    "Ж",
    "ق",
    "ह",
    "山",
    "ー",
    "！",
    "🙂",
    "\u0301",
]
WORDS = [
    "So,",
    "Wait",
    "therefore",
    "**Answer:**",
    "```python\n",
    "x^2",
    "\\boxed{7}",
    "3.5",
    "答案是",
    "Ответ",
    "नमस्ते",
]
NO_MARKERS = [
    "a < b, b <= c, <b>bold</b> </i>, </ think>, < think>, <thin king>, <th>, think> thinking </thin",
    "<<thin>>, </ th ink>, [ THINK], [TH INK], THINK] [/ THINK], seed:think>, <seed: think>, <think >",
    "</<//think, /think>, thinkthink, <think\n>, <|end_of|>, of_thought|>, <|thinking>, reasoning>",
    "<Think>, </THINK>, [think], <thi\u200bnk>, ＜think＞, &lt;think&gt;, <think/>, <thinks>, </thinks>",
    "<|begin|>, <|thin|king|>, ◁think, think▷, ◁/ think▷, <|begin_of_thought>, <think<think, think>think>",
]


@cache
def markers_of(name: str, pair: tuple[str, str]) -> Markers:
    return Markers.from_tokenizer(real(name), *pair)


def contexts(seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    found = [(a + b, "") for a in CHARACTERS for b in CHARACTERS[seed % 11 :: 11]]
    found += [("", a + b) for a in CHARACTERS[seed % 11 :: 11] for b in CHARACTERS]
    for _ in range(500):
        runs = ["".join(draw.choices(CHARACTERS, k=draw.randint(0, 6))) for _ in range(2)]
        found.append((draw.choice(WORDS) + runs[0], runs[1] + draw.choice(WORDS)))
    # A combining mark behind a marker is part of its last character where a tokenizer composes.
    return [(before, behind) for before, behind in found if not behind.startswith("\u0301")]


@EACH
@BOTH
def test_a_marker_is_found_in_every_context_and_nowhere_else(name, pair):
    tokenizer, markers = real(name), markers_of(name, pair)
    for marker, pattern in zip(pair, (markers.start_pattern, markers.end_pattern), strict=True):
        around = contexts(REAL.index(name) + len(marker))
        texts = [before + marker + behind for before, behind in around]
        for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
            expected = places(tokenizer, ids, marker)
            assert pattern.ends(ids) == expected, text
            assert expected, text


@EACH
def test_markers_at_random_places_of_real_texts_are_found_and_nothing_else_is(name):
    tokenizer = real(name)
    draw = random.Random(name)
    known = [(pair, markers_of(name, pair)) for pair in PAIRS]
    texts, inserted = [], []
    for text in math_texts():
        (start, end), markers = draw.choice(known)
        begin, stop = sorted(draw.choices(range(len(text) + 1), k=2))
        texts.append(text[:begin] + start + text[begin:stop] + end + text[stop:])
        inserted.append(((start, markers.start_pattern), (end, markers.end_pattern)))
    found = 0
    for ids, both in zip(tokenizer(texts, add_special_tokens=False)["input_ids"], inserted, strict=True):
        for marker, pattern in both:
            expected = places(tokenizer, ids, marker)
            assert pattern.ends(ids) == expected, (marker, tokenizer.decode(ids))
            found += len(expected)
    assert found == 2 * len(texts) > 2000


@EACH
@BOTH
def test_text_that_only_resembles_markers_holds_none(name, pair):
    tokenizer, markers = real(name), markers_of(name, pair)
    for text in (*NO_MARKERS, *math_texts()[::10]):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert not markers.start_pattern.ends(ids), text
        assert not markers.ends_pattern.ends(ids), text
