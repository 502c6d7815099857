"""Whether vLLM is there, which nothing but its own integration needs."""

import importlib.util


def require_vllm() -> None:
    """Raises ModuleNotFoundError where vLLM is not installed; it names the extra."""
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError(
            "engine: vllm is not installed; install it with: pip install 'elastic[vllm]'", name="vllm"
        )
