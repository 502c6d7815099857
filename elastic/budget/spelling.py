"""How a vocabulary writes a marker, learned from the vocabulary itself.

The marker is encoded in the contexts where models write one, and beside whatever the vocabulary can merge
with its edges. What matters of each encoding are the pieces of the marker that the tokens hold: encodings
with equal pieces are one `Spelling`. Its first place takes every token that ends in the first piece, its last
place every token that begins with the last one, so a match always means that the text holds the marker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from elastic.budget.pattern import LONGEST_MARKER, Pattern, Spelling
from elastic.budget.token_text import (
    added_tokens,
    decode,
    encode_all,
    encode_checked,
    same_text,
    token_bytes,
)

Context = tuple[str, str]  # what stands before and behind the marker
Pieces = tuple[bytes, ...]  # what each token holds of the marker

# What stands before and behind a marker in real traces, divided by "|". The first nine of each are tried
# in every pair, the others with a few of the first.
USUAL = 9
BEFORE = (  # noqa: SIM905 - a list would take one line per context
    "|x|x |x.|\n|x\n|x.\n|\n\n|x.\n\n"
    "| |  |\t|x\t|\n |\n  |\n\n\n|x\r\n|x,|x:|x: |x:\n|x;|x!|x?|x. |x)|x).|x).\n|(| (|x]|}|'|`|```\n|**|x**"
    '|*|_|-|- |#|>|</b>|=|"|x"| "|$|$$|$$\n|\\]|\\]\n|\\)|…|...|—|1|1 |1.|é|é |好|。|。\n|！|»|😀|ي|я '
).split("|")
BEHIND = (  # noqa: SIM905
    "|x| x|.|\n|\n\n|\nx|\n\nx|\n\n\n"
    "| |  x|\t|\r\n| \n|,|:| :|:\n|;|!|?|)|).|(|\n(|[|]|{|}|'|`|```|\n```|**|\n\n**|*|\n* |-|\n-|\n- |#"
    '|\n\n#|<|\n<|\n\n<|</|>| >|/|//|=|"|"\n|$|\n$|\n$$|\\(|\n\\[|…|...|—|_|1| 1|\n1|X|é|好|。|，|😀|ي|я'
).split("|")
# Neighbours taken from the vocabulary, per side of the marker: the lowest ids merge most often.
MOST_NEIGHBOURS = 500


@dataclass(frozen=True)
class Learned:
    """The spellings of one marker.

    Attributes:
        name: what the marker is called in messages.
        text: its text.
        needed: how it is written in real traces: alone first, then the most frequent.
        further: how it is written only beside what the vocabulary could merge with it.
    """

    name: str
    text: str
    needed: tuple[Spelling, ...]
    further: tuple[Spelling, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The marker as it is written alone."""
        return self.needed[0].ids

    def alone(self) -> Learned:
        """The same with only `ids` needed, where another marker inside it is found whenever it is missed."""
        return replace(self, needed=self.needed[:1], further=self.needed[1:] + self.further)


def learn(tokenizer: Any, text: str, name: str) -> Learned:
    """Every way in which a vocabulary writes a marker.

    Raises:
        ValueError: naming the text: it is empty, unknown to the tokenizer, too long, does not read back,
            holds the EOS token, or is not recognised in a context.
    """
    if not text or text.isspace():
        raise ValueError(f"{name}: expected a marker's text, got {text!r}")
    ids = tuple(encode_checked(tokenizer, text, name))
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is not None and eos in ids:
        raise ValueError(f"{name}: {text!r} holds the EOS token {eos}, which would end the row")
    if len(ids) > LONGEST_MARKER:
        raise ValueError(f"{name}: expected at most {LONGEST_MARKER} tokens, {text!r} has {len(ids)}")
    learned = Learned(name, text, (Spelling(ids),))
    contexts = _usual_contexts()
    encoded = _encode(tokenizer, text, contexts)
    if not (len(ids) == 1 and ids[0] in added_tokens(tokenizer)):
        learned = _with_neighbours(tokenizer, learned, contexts, encoded)
    _check(tokenizer, learned, contexts, encoded)
    return learned


def fit(markers: Sequence[Learned], places: int) -> list[tuple[Spelling, ...]]:
    """The spellings of several markers: all of those seen in real traces, and further ones while places last.

    Raises:
        ValueError: those of real traces do not fit. It names the markers, their tokens and the limit.
    """
    chosen = [list(marker.needed) for marker in markers]
    used = sum(map(len, (spelling for spellings in chosen for spelling in spellings)))
    if used > places:
        names = ", ".join(dict.fromkeys(marker.name for marker in markers))
        shown = ", ".join(
            f"{marker.text!r} {sum(map(len, marker.needed))} in {len(marker.needed)} spellings"
            for marker in markers
        )
        raise ValueError(f"{names}: expected at most {places} tokens in all spellings, got {used}: {shown}")
    for marker, spellings in zip(markers, chosen, strict=True):
        for spelling in marker.further:
            if used + len(spelling) <= places:
                spellings.append(spelling)
                used += len(spelling)
    return [tuple(spellings) for spellings in chosen]


def _usual_contexts() -> list[Context]:
    some = range(USUAL)
    return [
        *((BEFORE[i], BEHIND[j]) for i in some for j in some),
        *((before, BEHIND[j]) for before in BEFORE[USUAL:] for j in (0, 2, 4, 6)),
        *((BEFORE[i], behind) for i in (0, 2, 3, 5) for behind in BEHIND[USUAL:]),
    ]


def _with_neighbours(
    tokenizer: Any, alone: Learned, contexts: Sequence[Context], encoded: Sequence[list[int]]
) -> Learned:
    writing = _Writing(tokenizer, alone.text)
    as_alone = writing.read([("", "")], [list(alone.ids)])
    if not as_alone:  # the vocabulary does not tell the bytes that its tokens add to a text
        return alone
    needed = writing.read(contexts, encoded)
    neighbours = writing.neighbours()
    further = writing.read(neighbours, _encode(tokenizer, alone.text, neighbours))
    own = [writing.spelling(p, ids) for p, ids in as_alone.items()]
    return replace(
        alone,
        needed=(*own, *(writing.spelling(p, ids) for p, ids in needed.items() if p not in as_alone)),
        further=tuple(writing.spelling(p, ids) for p, ids in further.items() if p not in needed),
    )


def _encode(tokenizer: Any, text: str, contexts: Sequence[Context]) -> list[list[int]]:
    return encode_all(tokenizer, [before + text + behind for before, behind in contexts])


def _check(
    tokenizer: Any, learned: Learned, contexts: Sequence[Context], encoded: Sequence[list[int]]
) -> None:
    pattern = Pattern(learned.needed)
    unknown = getattr(tokenizer, "unk_token_id", None)
    for (before, behind), ids in zip(contexts, encoded, strict=True):
        context = before + learned.text + behind
        # A context that the vocabulary cannot write tells nothing about the marker.
        if pattern.ends(ids) or unknown in ids or not same_text(decode(tokenizer, ids), context):
            continue
        raise ValueError(
            f"{learned.name}: {learned.text!r} is {list(learned.ids)} alone, but {context!r} encodes to "
            f"{ids}, where it would not be recognised"
        )


class _Writing:
    """One marker in one vocabulary."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.written = token_bytes(tokenizer)
        self.marker = marker = text.encode()
        self.heads = tuple(marker[:n] for n in range(1, len(marker)))
        self.tails = tuple(marker[n:] for n in range(1, len(marker)))
        self.seen: set[int] = set()  # tokens of encoded texts; byte-fallback tokens of the same bytes are not
        never = {*added_tokens(tokenizer), *tokenizer.all_special_ids}
        self.merging = [
            i
            for i, token in enumerate(self.written)
            if (token.endswith(self.heads) or token.startswith(self.tails) or marker in token)
            and i not in never
        ]

    def read(self, contexts: Sequence[Context], encoded: Sequence[list[int]]) -> dict[Pieces, list[int]]:
        """The marker's pieces as seen in these contexts, with an example's ids, the most frequent first."""
        seen: Counter[Pieces] = Counter()
        example: dict[Pieces, list[int]] = {}
        for (before, behind), ids in zip(contexts, encoded, strict=True):
            self.seen.update(ids)
            tokens = [self.written[i] for i in ids]
            found = _find(tokens, before.encode(), self.marker, behind.encode())
            if found is not None:
                first, pieces = found
                seen[pieces] += 1
                example.setdefault(pieces, ids[first : first + len(pieces)])
        return {pieces: example[pieces] for pieces, _ in seen.most_common()}

    def neighbours(self) -> list[Context]:
        """The marker beside itself, and beside all that the vocabulary merges with one of its edges."""
        own = self.marker.decode()
        before: dict[str, None] = {}
        behind: dict[str, None] = {}
        for token in (self.written[i] for i in self.merging):
            before |= {_text(token[: -len(head)]): None for head in self.heads if token.endswith(head)}
            behind |= {_text(token[len(tail) :]): None for tail in self.tails if token.startswith(tail)}
        return [
            *((own, ""), ("", own), (own, own)),
            *((text, other) for text in list(before)[:MOST_NEIGHBOURS] for other in ("", "x", "\n")),
            *((other, text) for text in list(behind)[:MOST_NEIGHBOURS] for other in ("", "x", " ")),
        ]

    def spelling(self, pieces: Pieces, ids: Sequence[int]) -> Spelling:
        """These pieces with every token that can stand in the first and in the last place."""
        head, tail = pieces[0], pieces[-1]
        if len(pieces) == 1:
            first = last = frozenset(i for i in self.merging if head in self.written[i])
        else:
            first = frozenset(i for i in self.merging if self.written[i].endswith(head))
            last = frozenset(i for i in self.merging if self.written[i].startswith(tail))
        chosen = list(ids)  # of an example: its first and last token may hold text around the marker
        for place, others in ((-1, last), (0, first)):
            chosen[place] = min(
                {ids[place], *others}, key=lambda i: (len(self.written[i]), i not in self.seen, i)
            )
        with_text = frozenset(i for i in {ids[0], *first} if self.written[i].rpartition(head)[0].strip())
        return Spelling(tuple(chosen), first - {chosen[0]}, last - {chosen[-1]}, with_text)


def _find(tokens: list[bytes], before: bytes, marker: bytes, behind: bytes) -> tuple[int, Pieces] | None:
    """Where the marker begins, and its pieces; None if the tokens do not add up to the context."""
    found = _find_exactly(tokens, before, marker, behind)
    if found is None:  # word-level vocabularies drop white space
        before, marker, behind = map(_squeezed, (before, marker, behind))
        found = _find_exactly(list(map(_squeezed, tokens)), before, marker, behind)
    return found


def _find_exactly(
    tokens: list[bytes], before: bytes, marker: bytes, behind: bytes
) -> tuple[int, Pieces] | None:
    stream, context = b"".join(tokens), before + marker + behind
    extra = len(stream) - len(context)  # the space that SentencePiece puts in front
    if not stream.endswith(context) or stream[:extra].strip():
        return None
    begin = extra + len(before)
    end = begin + len(marker)
    at, pieces = 0, {}
    for place, token in enumerate(tokens):
        low, high = max(at, begin), min(at + len(token), end)
        if low < high:
            pieces[place] = token[low - at : high - at]
        at += len(token)
    in_a_row = max(pieces) - min(pieces) < len(pieces)  # false where a token of white space was squeezed out
    return (min(pieces), tuple(pieces.values())) if in_a_row else None


def _squeezed(text: bytes) -> bytes:
    return b"".join(text.split())


def _text(token: bytes) -> str:
    """A token's bytes as text, without those of incomplete characters."""
    return token.decode(errors="ignore")
