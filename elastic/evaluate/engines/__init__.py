"""What decodes an evaluation's rows: the package's own engine, the `generate` of transformers, or vLLM."""

from elastic.evaluate.engines.engine import ENGINES, Engine, engine_name, open_engine

__all__ = ["ENGINES", "Engine", "engine_name", "open_engine"]
