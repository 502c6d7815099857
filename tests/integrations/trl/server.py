"""A stand-in for TRL's vLLM server: the same calls and answers, tokens by `RolloutEngine`."""

from typing import Any

from elastic import RolloutEngine
from elastic.budget import FinishReason
from elastic.integrations.request_values import read_values
from elastic.integrations.trl.server import PROCESSOR
from elastic.sampling import Sampling


class Client:
    """What `VLLMClient` is asked for. Logprobs are off by `mismatch`, as those of another engine are.

    Attributes:
        requests: the `generation_kwargs` of every request.
    """

    def __init__(self, trainer: Any, mismatch: float = 0.0, **server: Any) -> None:
        self._trainer, self._mismatch = trainer, mismatch
        self._server = {"logits_processors": [PROCESSOR], "logprobs_mode": "raw_logprobs", **server}
        self.requests: list[dict[str, Any]] = []
        self._engine: RolloutEngine | None = None

    def get_server_info(self) -> dict[str, Any]:
        return {"model_config": self._server}

    def generate(
        self, prompts: list[list[int]], n: int, logprobs: int, generation_kwargs: dict[str, Any], **own: Any
    ) -> dict[str, Any]:
        """Completions of one prompt; a row whose budget is spent is ended by an EOS."""
        assert len(prompts) == 1
        assert logprobs == 0
        self.requests.append(generation_kwargs)
        asked = read_values(generation_kwargs["vllm_xargs"], {})
        assert asked is not None
        if self._engine is None:
            self._engine = RolloutEngine(self._trainer.model, self._trainer._tokenizer, progress=False)
        seeds = [generation_kwargs["seed"] + row for row in range(n)]
        batch = self._engine.generate(
            prompts, asked.budget, n, Sampling(**own), seeds=seeds, phase=asked.phase
        )
        rows, values = [], []
        for row, length in enumerate(batch.lengths.tolist()):
            spent = int(batch.finish_reason[row]) == FinishReason.SOLUTION_BUDGET
            rows.append(batch.tokens[row, :length].tolist() + [self._trainer.eos_token_ids[0]] * spent)
            told = (batch.full_logprobs[row, :length] + self._mismatch * (row + 1)).tolist()
            values.append([[value] for value in told + [0.0] * spent])
        assert max(map(len, rows)) <= generation_kwargs["max_tokens"]
        return {"prompt_ids": prompts, "completion_ids": rows, "logprobs": values}


class _Generation:
    """As much of `VLLMGeneration` as a trainer with a rollout function uses."""

    def __init__(self, client: Client) -> None:
        self.vllm_client = client

    def sync_weights(self) -> None:
        """The stand-in reads the trainer's own weights."""


def connect(trainer: Any, **options: Any) -> Client:
    """Makes a trainer that was built without vLLM one with `vllm_mode="server"`."""
    client = Client(trainer, **options)
    trainer.use_vllm, trainer.vllm_mode = True, "server"
    trainer.vllm_generation, trainer._last_loaded_step = _Generation(client), -1
    return client
