"""Small real tokenizers, trained on a few lines."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

EOS = "<|end|>"


def bpe(
    lines: Sequence[str],
    special: Sequence[str] = (),
    merges: int = 60,
    alphabet: bool = True,
    split: bool = True,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE as in GPT-2, Llama 3, Qwen.

    `alphabet=False` leaves out the bytes that do not occur; `split=False` lets merges cross words and lines.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None if alphabet else "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=letters,
        special_tokens=[EOS, "<unk>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens(list(special))
    unknown = {} if alphabet else {"unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, **unknown)


def words(vocabulary: Sequence[str], special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a word, split at white space; what is not in the vocabulary is <unk>."""
    ids = {word: i for i, word in enumerate([EOS, "<unk>", *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token="<unk>")


def word_pieces(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """As BERT: "##" in front of what goes on with a word, longest piece first."""
    ids = {piece: i for i, piece in enumerate([EOS, "<unk>", *vocabulary])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token="<unk>")


def pieces(vocabulary: Sequence[str], special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """SentencePiece style: "▁" for spaces, one in front of the text, longest piece first (Unigram)."""
    scores = [(EOS, 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in vocabulary)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token="<unk>")


def byte_fallback(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """As Llama 2: SentencePiece pieces, and for every other character its bytes."""
    scores = [(EOS, 0.0), ("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    scores += [(piece, -1.0) for piece in vocabulary]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token="<unk>")


def byte_level(vocabulary: Sequence[bytes]) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary of these tokens, in which nothing merges."""
    alphabet = bytes_to_unicode()
    ids = {"".join(alphabet[byte] for byte in token): i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def chat(user: str, assistant: str) -> str:
    """A chat template's text: the user's message, then the assistant's turn as far as it is opened."""
    return f"<|user|>{user}<|assistant|>\n{assistant}"
