"""What the grading worker runs: one pair of expressions through math-verify. Imports no torch."""

import json
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

# A decimal against an irrational number: right in its first seven digits.
_ROUNDED = 5e-7
_EXACT = 1e-30
_DIGITS = 50
_OUT_OF_MEMORY = 3
BEYOND_LIMITS = (-signal.SIGPROF, _OUT_OF_MEMORY)  # return codes of a process that a pair ended
# Variables get two sets of unusual values: expressions that agree at one by chance differ at the other.
_POINTS = (lambda i: (12 * i + 17, 2 * i + 13)), (lambda i: (2 * i + 5, 10 * i + 23))


def same(stated: str, answer: str) -> bool:
    """Whether math-verify takes two LaTeX expressions as equal, and no number in them says otherwise."""
    from math_verify import verify
    from sympy import Expr

    gold, target = _parsed(answer), _parsed(stated)
    if gold is None or target is None:
        return False
    if isinstance(gold, Expr) and isinstance(target, Expr):
        close = _close(gold, target)
        # math-verify rounds to 6 decimals and drops what is below 1e-15: it calls all tiny numbers equal.
        if close is False or (close and not gold.free_symbols | target.free_symbols):
            return close
    return bool(verify(gold, target, timeout_seconds=None))


@lru_cache(maxsize=1024)  # a problem is sampled many times, and parsing is most of the work
def _parsed(text: str) -> Any:
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # All of the text or nothing: by default what does not parse is searched for a number.
    normal = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last", equations=False
    )
    whole = LatexExtractionConfig(False, boxed_match_priority=0, normalization_config=normal)
    found = parse(f"\\boxed{{{text}}}", extraction_config=[whole], parsing_timeout=None)
    return None if not found or isinstance(found[0], str) else found[0]


def _close(gold: Any, target: Any) -> bool | None:
    """Whether two expressions have the same values up to a relative error; None without finite values."""
    from sympy import Float, Rational

    rounded = gold.has(Float) or target.has(Float)
    gold, target = (
        expr.xreplace({number: Rational(str(number)) for number in expr.atoms(Float)})
        for expr in (gold, target)
    )
    symbols = gold.free_symbols | target.free_symbols
    names = sorted({symbol.name for symbol in symbols})
    for point in _POINTS if names else _POINTS[:1]:
        values = {symbol: Rational(*point(names.index(symbol.name))) for symbol in symbols}
        try:
            a, b = (expr.doit().subs(values) for expr in (gold, target))
            exact = a.is_Rational and b.is_Rational
            a, b = (a, b) if exact else (a.evalf(_DIGITS), b.evalf(_DIGITS))
            if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
                return None
            inexact = _ROUNDED if rounded else _EXACT
            tolerance = 0 if exact and not (rounded and names) else inexact
            if abs(a - b) > tolerance * max(abs(a), abs(b)):
                return False
        except (TypeError, ValueError, AttributeError, ArithmeticError, NotImplementedError):
            return None
    return True


def serve(seconds: float, memory_bytes: int) -> None:
    """Answers lines of JSON `[stated, answer]` on stdin with `true` or `false` on stdout, until stdin ends.

    A pair that takes more than `seconds` of processor time ends the process, by a signal whose default action
    the kernel carries out: Python runs no handler while one huge power is computed. No parent is needed.
    """
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no result
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A terminal sends these to the whole group, but the parent decides; when it ends, stdin does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        same("1", "1")  # imports
    except Exception as error:
        results.write(f"{error!r}\n")
        return
    results.write("ready\n")
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            equal = same(*json.loads(line))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)  # after this, libraries may be in any state
        except Exception:
            equal = False  # the libraries raise whatever they like on text that is no mathematics
        signal.setitimer(signal.ITIMER_PROF, 0)
        results.write(json.dumps(equal) + "\n")
