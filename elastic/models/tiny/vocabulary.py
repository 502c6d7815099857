"""The model's words and its tokenizer: one id per word, words split at white space."""

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from elastic.data.sums import BOS, END, EOS, NAMES, START

PAD = "<pad>"
UNKNOWN = "<unk>"

SPECIAL = (PAD, BOS, EOS, UNKNOWN, START, END)
WORDS = (
    *SPECIAL,
    *(str(digit) for digit in range(10)),
    *("+", "-", "=", "?", ".", ":"),
    *NAMES,
    *("so", "we", "have", "wait", "check", "ok", "answer", "is"),
)
IDS = {word: index for index, word in enumerate(WORDS)}
MAX_LENGTH = 1024
# Turns a user's message, a sum of named terms, into a prompt whose thinking is open.
CHAT_TEMPLATE = "{{ bos_token }} {{ messages[-1]['content'] }} <think>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that is saved beside the model.

    ``decode`` joins words with single spaces, so ``decode(encode(text)) == text`` for any text made of
    the model's words with single spaces. Other words become ``<unk>``.
    """
    core = Tokenizer(WordLevel(dict(IDS), unk_token=UNKNOWN))
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[START, END],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
