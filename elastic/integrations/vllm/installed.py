"""Whether vLLM is there, which nothing but its own integration needs."""

from importlib.util import find_spec


def require_vllm() -> None:
    """Raises ModuleNotFoundError where vLLM is not installed; it names the extra."""
    if find_spec("vllm") is None:
        raise ModuleNotFoundError(
            "engine: vllm is not installed; install it with: pip install 'elastic[vllm]'", name="vllm"
        )
