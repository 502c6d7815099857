"""vLLM's OpenAI-compatible server in a process of its own, and requests to it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integrations.vllm.offline import PROCESSOR

START_S = 400.0  # a busy machine takes minutes to import vLLM
REQUEST_S = 120.0


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: where it listens.
        process: its first process, the leader of their group.
        log: what its processes write.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and answer of a request."""
        try:
            with self.open(path, **body) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stream(self, path: str, **body: Any) -> Iterator[Any]:
        """The parts of a streamed answer. Closing the iterator closes the connection: the client leaves."""
        with self.open(path, stream=True, **body) as answer:
            for line in answer:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])

    def open(self, path: str, **body: Any) -> Any:
        """The connection that a request has opened.

        Raises:
            urllib.error.HTTPError: a status of 400 or above.
        """
        request = urllib.request.Request(
            f"{self.url}{path}",
            json.dumps({"model": "elastic", **body}).encode(),
            {"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, timeout=REQUEST_S)


@contextmanager
def serving(
    folder: Path, log: Path, *options: str, elastic: dict[str, Any] | None = None
) -> Iterator[Server]:
    """A server of the model in a folder, called "elastic"; `elastic` is a part of its additional config."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--model", str(folder), "--served-model-name", "elastic"),
        *("--distributed-executor-backend", "uni"),  # no further process for the model
        *("--dtype", "float32", "--enforce-eager", "--disable-uvicorn-access-log"),
        *("--logits-processors", PROCESSOR, "--additional-config", json.dumps({"elastic": elastic or {}})),
        *options,
    ]
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH")))),
    }
    with log.open("wb") as to:
        process = subprocess.Popen(
            command, stdout=to, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        _stop(process)


def _wait(server: Server) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the server did not start:\n{server.log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and the processes that it has started."""
    for sign, wait_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait(10)
