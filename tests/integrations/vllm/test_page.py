"""docs/vllm.md: its table is that of the code, and its Python runs as printed."""

from functools import partial

from tests.integrations import pages
from tests.integrations.vllm import page


def test_the_table_is_made_from_the_request_values():
    text = page.PAGE.read_text()
    assert page.written(text) == text


def test_the_example_runs(vllm, tiny_folder, monkeypatch, capsys):
    small = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 4, "max_model_len": 256}
    own = partial(vllm.LLM, distributed_executor_backend="uni", disable_log_stats=True, **small)
    monkeypatch.setattr(vllm, "LLM", lambda path, **given: own(str(tiny_folder), **given))
    names = pages.run("vllm.md")
    first, second = (
        list(out.outputs[0].token_ids) for out in names["llm"].generate(names["prompts"], names["params"])
    )
    assert len(first) <= 48 + 1 + 16 + 1
    assert len(capsys.readouterr().out.splitlines()) >= 2
    end = names["llm"].get_tokenizer().convert_tokens_to_ids("</think>")
    assert second.index(end) <= 8 + 4
    names["llm"].llm_engine.engine_core.shutdown()
