"""The class that vLLM loads: `--logits-processors elastic.integrations.vllm:ElasticBudgets`."""

from __future__ import annotations

import sys
from threading import Lock
from types import FrameType
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor as V1Base
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2Base

from elastic.integrations.vllm.refuse import Refusal
from elastic.integrations.vllm.settings import Settings


class ElasticBudgets(V1Base, V2Base):
    """Separate budgets for thinking and solution, per request, under both of vLLM's model runners.

    A request names its budget in `extra_args` (over HTTP in `vllm_xargs`); `values.VALUES` lists the names.
    One that names none, on a server without defaults, is left alone. Rows with a budget are drawn here, by
    `elastic.ops.sample` with the request's temperature, filters and seed, and nothing else is left for vLLM
    to choose: the tokens are those of `RolloutEngine` for the same logits and seed. Logits that cannot be
    drawn from (NaN) end their request.

    Args:
        vllm_config: vLLM's configuration; `Settings` says what is read from it.
        runner: the device (V1), or the states of the requests (V2).
        is_pin_memory: of V1; not used.

    Raises:
        ValueError: a configuration that budgets cannot work with.
    """

    def __init__(self, vllm_config: Any, runner: Any, is_pin_memory: bool | None = None) -> None:
        settings = Settings(vllm_config)
        self._own: Any
        if is_pin_memory is None:
            from elastic.integrations.vllm.v2 import V2Budgets

            self._own = V2Budgets(settings, runner)
        else:
            from elastic.integrations.vllm.v1 import V1Budgets

            self._own = V1Budgets(settings, runner)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses a request whose budget could not be kept; over HTTP it gets status 400.

        Raises:
            ValueError: naming the value and the limit.
        """
        _refusal_of(_calling_config()).check(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """A budget may change which token is drawn at temperature 0, too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """V1: requests have come, gone or moved."""
        self._own.update_state(batch_update)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """V2: a request has taken a slot. Whether it has a budget."""
        return self._own.add_request(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """V2: what `add_request` has staged goes to the device."""
        self._own.apply_staged_writes()

    def apply(self, logits: Any, *context: Any) -> Any:
        """Draws the rows with a budget, and leaves each one token: 0, and -inf for all others."""
        return self._own.apply(logits, *context)


_LOCK = Lock()
_REFUSALS: list[tuple[Any, Refusal]] = []  # an entry per engine of this process


def _refusal_of(config: Any) -> Refusal:
    with _LOCK:
        for known, refusal in _REFUSALS:
            if known is config:
                return refusal
        _REFUSALS.append((config, Refusal(Settings(config))))
        return _REFUSALS[-1][1]


def _calling_config() -> Any:
    """The configuration of the engine that asks.

    `validate_params` gets a request alone, but whether a text works depends on the tokenizer, and whether a
    budget fits on the context. Behind the front end an error would stop the engine for all. So the
    configuration is taken from the object that calls: vLLM's `InputProcessor` has it in `vllm_config`.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        config = getattr(frame.f_locals.get("self"), "vllm_config", None)
        if config is not None:
            return config
        frame = frame.f_back
    raise ValueError("budgets: this vLLM checks requests in another way than 0.32, which was tried")
