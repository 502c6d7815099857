"""What tests of the real vLLM need: the package, and folders with models that it loads."""

import importlib.util
import os

import pytest

from elastic import load_model
from tests.integrations import scripted_model
from tests.integrations.vllm.load import OPTIONS
from tests.integrations.vllm.server import serving


@pytest.fixture(scope="session")
def vllm():
    """vLLM; without it the test is skipped, or fails where ELASTIC_REQUIRE_VLLM is 1."""
    if importlib.util.find_spec("vllm") is None:
        missing = "vllm is not installed (make test-vllm has it)"
        if os.environ.get("ELASTIC_REQUIRE_VLLM") == "1":
            pytest.fail(f"{missing}, and ELASTIC_REQUIRE_VLLM is 1")
        pytest.skip(missing)
    # The engine in this process, where tests can look at it.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm

    return vllm


@pytest.fixture(scope="session")
def tiny():
    """The embedded model and its tokenizer."""
    return load_model("tiny")


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory):
    """A folder with the embedded model, as vLLM loads it."""
    folder = tmp_path_factory.mktemp("tiny")
    for part in tiny:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scripted_folder(tmp_path_factory):
    """A folder with the model that writes the scenarios' scripts."""
    folder = tmp_path_factory.mktemp("scripted")
    scripted_model.save(folder)
    return folder


@pytest.fixture(scope="session")
def server(vllm, tiny_folder, tmp_path_factory):
    """A server of the embedded model; it parses reasoning, and preempts requests under load."""
    parser = ("--reasoning-parser", "deepseek_r1")
    with serving(tiny_folder, tmp_path_factory.mktemp("server") / "log", *OPTIONS, *parser) as server:
        yield server
