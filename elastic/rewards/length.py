"""Rewards of lengths: L1-Exact and L1-Max (SPEC section 6; arXiv 2503.04697), and DAPO's soft punishment."""

from collections.abc import Callable

ALPHA = 3e-4

Ask = Callable[[str, str, int], str]  # (question, kind, N) to the question that asks for N tokens


def l1_exact(correct: float, target_tokens: int, used_tokens: int, alpha: float = ALPHA) -> float:
    """``correct - alpha * abs(target_tokens - used_tokens)``.

    Args:
        correct: 1.0 or 0.0.
        target_tokens: the length the prompt asked for.
        used_tokens: sampled tokens of the whole response, thinking and solution.
        alpha: reward lost per token of difference.

    Raises:
        ValueError: a negative count or ``alpha``.
    """
    _check(target_tokens, used_tokens, alpha)
    return correct - alpha * abs(target_tokens - used_tokens)


def l1_max(correct: float, target_tokens: int, used_tokens: int, alpha: float = ALPHA) -> float:
    """``correct * clip(alpha * (target_tokens - used_tokens) + 0.5, 0, 1)``; see `l1_exact`."""
    _check(target_tokens, used_tokens, alpha)
    return correct * min(max(alpha * (target_tokens - used_tokens) + 0.5, 0.0), 1.0)


def soft_overlong(used_tokens: int, max_tokens: int, cache_tokens: int) -> float:
    """0 up to ``max_tokens - cache_tokens``, from there linearly down to -1 at ``max_tokens`` and beyond.

    Source: DAPO (arXiv 2503.14476), equation 13.

    Args:
        used_tokens: of a response.
        max_tokens: its most.
        cache_tokens: how many of these, the last ones, cost something.

    Raises:
        ValueError: ``cache_tokens`` below 1 or above ``max_tokens``.
    """
    if not 1 <= cache_tokens <= max_tokens:
        raise ValueError(
            f"length reward: cache_tokens must be in [1, max_tokens = {max_tokens}], got {cache_tokens}"
        )
    return -min(max((used_tokens - (max_tokens - cache_tokens)) / cache_tokens, 0.0), 1.0)


def l1_prompt(kind: str, target_tokens: int) -> str:
    """The sentence that asks the model for a length.

    Raises:
        ValueError: ``kind`` is neither ``l1-exact`` nor ``l1-max``.
    """
    if kind == "l1-exact":
        return f"Think for {target_tokens} tokens."
    if kind == "l1-max":
        return f"Think for maximum {target_tokens} tokens."
    raise ValueError(f"l1_prompt: kind must be 'l1-exact' or 'l1-max', got {kind!r}")


def ask_in_words(question: str, kind: str, target_tokens: int) -> str:
    """The question with `l1_prompt` behind it."""
    return f"{question} {l1_prompt(kind, target_tokens)}"


def user_message(
    question: str,
    *,
    suffix: str = "",
    length: str = "none",
    target_tokens: int | None = None,
    ask: Ask = ask_in_words,
) -> str:
    """The user's message, built in the same way in training, in its evaluations and in `elastic eval`.

    Args:
        question: of the problem.
        suffix: a line behind it, as "Put the final answer in \\boxed{}."; empty for none.
        length: ``none``, ``l1-exact`` or ``l1-max``; the request for a length comes last.
        target_tokens: the length N; None for no request.
        ask: adds the request. A named set has its own, as its prompts are complete (`elastic.data.NamedSet`).

    Raises:
        ValueError: an unknown ``length``.
    """
    text = f"{question}\n{suffix}" if suffix else question
    if length == "none" or target_tokens is None:
        return text
    return ask(text, length, target_tokens)


def _check(target_tokens: int, used_tokens: int, alpha: float) -> None:
    for name, value in (("target_tokens", target_tokens), ("used_tokens", used_tokens), ("alpha", alpha)):
        if value < 0:
            raise ValueError(f"length reward: {name} must be at least 0, got {value}")
