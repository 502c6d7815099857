"""The table of a training configuration that says what is rewarded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from elastic.data.import_path import is_path
from elastic.rewards.code import Rules, code_grader
from elastic.rewards.code.reward import CodeGrader
from elastic.rewards.functions import ANSWER, asked_by, called, load_function
from elastic.rewards.stated import Boxes
from elastic.train.config.schema import Section, limited

CORRECTNESS = ("math", "tiny", "code")  # built-in rewards that say what is correct
OVERLONG = "overlong"
NO_CORRECTNESS = "none"


@dataclass(frozen=True)
class RewardConfig(Section):
    """``[reward]``: 1 for a correct answer, optionally with L1's length term (SPEC section 6), or functions.

    Attributes:
        name: the correctness reward, which evaluations and the metric ``accuracy`` go by: ``math``
            (`elastic.rewards.math_reward`); ``tiny``, of the embedded task; ``code``, programs run on tests
            in a sandbox (`elastic.rewards.code_reward`); an import path, as in ``functions``; or ``none``. By
            default the first built-in one of ``functions``, ``none`` where they have none.
        functions: what is rewarded, by default ``name`` alone: names of correctness rewards, ``overlong``,
            and import paths of your own (docs/rewards.md), as ``rewards.py:brevity`` or ``package.module:f``.
        weights: of ``functions``, by default all 1. A row's reward is the weighted sum of what they gave;
            ``None`` leaves a function out, and a row that only got ``None`` takes no part.
        messages: whether ``prompts`` and ``completions`` reach functions as chats, as TRL's conversational
            data has them; false for texts.
        async_timeout_s: seconds that a call of an async function may take; absent for any time.
        overlong_tokens: of ``overlong``: the most tokens of a row, by default what it may sample.
        overlong_cache: of ``overlong``: over how many last ones of these the reward falls from 0 to -1 (DAPO,
            arXiv 2503.14476).
        boxes: of ``math``: ``last`` takes the last box, ``all`` the list of the different ones.
        answer_tags: of ``math``: whether the last ``<answer>...</answer>`` has precedence.
        workers: answers graded at once, in each process; by default its share of the machine's cores.
        timeout_s: of ``code``: seconds of processor time for each test; of the clock five times as many.
        memory_mb: of ``code``: MiB for a program and what it starts.
        sandbox: of ``code``: false runs programs unprotected, with the rights of the training.
        length: ``none``, ``l1-exact`` or ``l1-max``; the prompt then asks for N tokens.
        alpha: reward per token of the length term.
        target_min: least N, drawn uniformly for each prompt; by default the lesser of 100 and ``target_max``.
        target_max: greatest N; by default 4000 or what a row may sample, whichever is less.
    """

    TABLE: ClassVar[str] = "reward"

    name: str = "math"
    functions: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    messages: bool = False
    async_timeout_s: float | None = limited(None, above=0)
    overlong_tokens: int | None = limited(None, low=1)
    overlong_cache: int | None = limited(None, low=1)
    boxes: Boxes = "last"
    answer_tags: bool = False
    workers: int | None = limited(None, low=1)
    timeout_s: float = limited(6.0, above=0)
    memory_mb: int = limited(1024, low=1)
    sandbox: bool = True
    length: Literal["none", "l1-exact", "l1-max"] = "none"
    alpha: float = limited(3e-4, low=0)
    target_min: int = limited(100, low=1)
    target_max: int = limited(4000, low=1)

    def check(self) -> None:
        known = (*CORRECTNESS, NO_CORRECTNESS)
        if self.name not in known and not is_path(self.name):
            raise ValueError(
                f"reward.name: must be one of {', '.join(known)} or an import path as "
                f"'package.module:function', got '{self.name}'"
            )
        for function in self.functions:
            if function not in (*CORRECTNESS, OVERLONG) and not is_path(function):
                raise ValueError(
                    f"reward.functions: must be of {', '.join((*CORRECTNESS, OVERLONG))} or import paths as "
                    f"'package.module:function' or 'file.py:function', got '{function}'"
                )
        self._check_names()
        if self.functions and self.weights and len(self.weights) != len(self.functions):
            raise ValueError(
                f"reward.weights: must be {len(self.functions)} numbers, one for each of reward.functions, "
                f"got {list(self.weights)}"
            )
        if OVERLONG in self.functions and self.overlong_cache is None:
            raise ValueError(f"reward.overlong_cache: '{OVERLONG}' needs it")

    def _check_names(self) -> None:
        """Metrics know a function by its name alone."""
        paths = dict.fromkeys((*self.functions, self.name))
        names = [called(path) for path in paths]
        if len(set(self.functions)) < len(self.functions) or len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1 or self.functions.count(n) > 1)
            raise ValueError(
                f"reward.functions: two are called '{twice}', which metrics could not tell apart"
            )

    @property
    def used(self) -> tuple[str, ...]:
        """All that is asked about a row: what is rewarded, and what says that it is correct."""
        own = () if self.name == NO_CORRECTNESS else (self.name,)
        return tuple(dict.fromkeys((*own, *self.functions)))

    @property
    def paid(self) -> tuple[str, ...]:
        """What is rewarded."""
        return self.functions or (self.name,)

    def following_functions(self) -> str:
        """What `name` is where only ``functions`` are given."""
        return next((function for function in self.functions if function in CORRECTNESS), NO_CORRECTNESS)

    def own_functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that import paths name, by path.

        Raises:
            ValueError: one cannot be imported or called; names the key.
        """
        found = {}
        for path in filter(is_path, self.used):
            try:
                found[path] = load_function(path)
                asked_by(found[path], called(path))
            except ValueError as error:
                key = "functions" if path in self.functions else "name"
                raise ValueError(f"reward.{key}: {error}") from error
        return found

    def columns(self, *, evaluation: bool = False) -> tuple[str, ...]:
        """Columns of the data that functions cannot do without; those of `name` alone for evaluations."""
        asked = [
            asked_by(function, path)
            for path, function in self.own_functions().items()
            if path == self.name or not evaluation
        ]
        return tuple(dict.fromkeys(name for own in asked for name in own.columns if name != ANSWER))

    def code_grader(self) -> CodeGrader:
        """The reward of ``code``; ValueError where this machine cannot give it."""
        try:
            return code_grader(Rules(self.timeout_s, self.memory_mb, self.sandbox))
        except ValueError as error:
            raise ValueError(str(error).replace("reward:", "reward.name:", 1)) from error

    def check_available(self) -> None:
        """Raises ValueError where this machine cannot give the reward."""
        if "code" in self.used:
            self.code_grader()
        self.own_functions()

    def check_tests(self, table: str, source: str, have_tests: Iterable[bool]) -> None:
        """Raises ValueError where the reward does not fit a source's problems, with or without tests."""
        tests, used = list(have_tests), self.used if table == "data" else (self.name,)
        if "code" in used and not all(tests):
            raise ValueError(
                f"{table}.source: problems of '{source}' have no tests, which {self._said('code')} runs"
            )
        blind = next((name for name in ("math", "tiny") if name in used), None)
        if blind is not None and any(tests):
            raise ValueError(
                f"{table}.source: problems of '{source}' are graded by tests, which {self._said(blind)} does "
                "not run: every answer would be wrong"
            )

    def _said(self, name: str) -> str:
        return f"reward.name = '{name}'" if name == self.name else f"'{name}' of reward.functions"
