"""Prompts of training, of its evaluations and of sweeps: one rule a source, one question a length."""

import json
import warnings

import pytest
from tokenizers.processors import TemplateProcessing

from elastic.data import NAMED_SETS, Problem, load
from elastic.evaluate.methods import METHODS
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.rollout import RolloutEngine
from elastic.train import Trainer
from elastic.train.collect.prompts import Prompts
from tests.train.tiny_run import build_config, build_model, run

BOS, START = IDS["<bos>"], IDS["<think>"]
TEMPLATE = "<bos> {% for m in messages %}{{ m.content }} {% endfor %}<think>"
QUESTION = Problem("1 + 2 = ?", "3", "q")
COMPLETE = Problem("<bos> 1 + 2 = ? <think>", "3", "c")


def chatty():
    """A template that puts every message, line breaks included, in front of the open thinking block."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"question": "4 + 5 = ?", "answer": 9}) + "\n")
    return str(path)


@pytest.mark.parametrize("training", ["tiny", "file"])
def test_each_source_has_its_own_template_rule(tmp_path, file, training):
    """A named set's prompts are complete, a file's are questions, whichever of them is trained on."""
    sources = {"tiny": "tiny", "file": file}
    evaluated = "file" if training == "tiny" else "tiny"
    config = build_config(
        tmp_path / "run",
        data={"source": sources[training], "count": 4},
        eval={"every": 1, "source": sources[evaluated], "count": 1},
    )
    tokenizer = build_tokenizer()
    made = {
        training: Prompts.of_training(tokenizer, config),
        evaluated: Prompts.of_evaluation(tokenizer, config),
    }
    for name, prompts in made.items():
        problems = load(sources[name], count=1)
        (text,) = prompts.render(problems, [None])
        expected = problems[0].prompt if name == "tiny" else "<bos> 4 + 5 = ? <think>"
        assert text == expected
        assert (text.count("<bos>"), text.count("<think>")) == (1, 1)


@pytest.mark.parametrize(
    ("data", "evaluation", "chat"),
    [
        ({"chat": "off"}, {}, (False, False)),
        ({"chat": "off"}, {"chat": "on"}, (False, True)),
        ({"chat": "on"}, {"chat": "off"}, (True, False)),
        ({"chat": "auto"}, {}, (True, True)),
        ({"chat": "on"}, {"source": "tiny"}, (True, False)),
        ({"source": "tiny", "count": 4, "chat": "on"}, {"source": None}, (True, True)),
    ],
)
def test_the_evaluations_own_key_decides_and_else_that_of_the_data(tmp_path, file, data, evaluation, chat):
    evaluation = {"every": 1, "source": file, "count": 1} | evaluation
    evaluation = {key: value for key, value in evaluation.items() if value is not None}
    config = build_config(tmp_path / "run", data={"source": file} | data, eval=evaluation)
    tokenizer = build_tokenizer()
    made = Prompts.of_training(tokenizer, config), Prompts.of_evaluation(tokenizer, config)
    assert tuple(prompts.chat for prompts in made) == chat


def test_an_evaluation_that_needs_a_template_and_has_none_is_refused_by_its_table(tmp_path, file):
    bare = build_tokenizer()
    bare.chat_template = None
    config = build_config(tmp_path, eval={"every": 1, "source": file, "chat": "on"})
    with pytest.raises(ValueError, match=r"eval\.chat: 'on', but the tokenizer has no chat template"):
        Prompts.of_evaluation(bare, config)
    length = {"length": "l1-max", "target_min": 2, "target_max": 9}
    evaluation = {"every": 1, "source": file, "chat": "off"}
    config = build_config(tmp_path, data={"source": file}, reward=length, eval=evaluation)
    with pytest.raises(ValueError, match=r"reward\.length: .* prompts of eval\.source = '.*' stand without"):
        Prompts.of_evaluation(build_tokenizer(), config)


@pytest.mark.parametrize(("length", "word"), [("l1-exact", "so"), ("l1-max", "ok")])
def test_a_named_set_asks_for_a_length_inside_its_complete_prompts(tmp_path, length, word):
    """Training, its evaluations and `elastic eval` write the same prompt, in words that the model has."""
    config = build_config(
        tmp_path,
        reward={"length": length, "target_min": 2, "target_max": 11},
        eval={"every": 1, "count": 2},
    )
    (problem,) = load("tiny", count=1)
    expected = problem.prompt.replace("<think>", f"{word} : 1 0 <think>")
    tokenizer = build_tokenizer()
    for prompts in (Prompts.of_training(tokenizer, config), Prompts.of_evaluation(tokenizer, config)):
        assert prompts.render([problem], [10]) == [expected]
        (ids,) = prompts.encode([expected], len(IDS))
        assert tokenizer.decode(ids) == expected
    method = METHODS[length.replace("-", "_")]
    assert method.question(problem.prompt, 6, 4, ask=NAMED_SETS["tiny"].ask) == expected


class Watched:
    """Keeps what the engine was asked."""

    def __init__(self, monkeypatch):
        self.calls = []
        generate = RolloutEngine.generate

        def watched(engine, prompts, *args, **named):
            self.calls.append((list(prompts), named))
            return generate(engine, prompts, *args, **named)

        monkeypatch.setattr(RolloutEngine, "generate", watched)


def l1_run(tmp_path, **tables):
    return build_config(
        tmp_path / "run",
        data={"chat": "on", "suffix": "so"},
        reward={"length": "l1-exact", "target_min": 5, "target_max": 9},
        eval={"every": 1, "count": 4},
        **tables,
    )


def test_l1_is_trained_monitored_and_swept_on_the_same_prompt(tmp_path, monkeypatch):
    config = l1_run(tmp_path, train={"steps": 1})
    problems = [Problem(f"{n} + 1 = ?", str(n + 1), str(n)) for n in range(8)]
    watched = Watched(monkeypatch)
    Trainer(config, build_model(), chatty(), problems[:4], lambda *_: 1.0, eval_dataset=problems[4:]).train()
    evaluated, trained, again = (prompts for prompts, _ in watched.calls)
    assert evaluated == again  # the same lengths every time
    numbers = []
    for prompts, rows in ((trained, problems[:4]), (evaluated, problems[4:])):
        for problem in rows:
            (prompt,) = [p for p in prompts if problem.prompt in p]
            (total,) = [n for n in range(5, 10) if f"Think for {n} tokens." in prompt]
            swept = METHODS["l1_exact"].question(problem.prompt, total - 2, 2, suffix="so")
            assert prompt == f"<bos> {swept} <think>"
            assert swept == f"{problem.prompt}\nso Think for {total} tokens."
            numbers.append(total)
    assert len(set(numbers[4:])) > 1


def test_lengths_of_an_evaluation_do_not_depend_on_the_number_of_processes(tmp_path):
    prompts = Prompts.of_evaluation(chatty(), l1_run(tmp_path))
    whole = prompts.lengths(0, range(12))
    assert prompts.lengths(0, range(1, 12, 3)) == whole[1::3]
    assert all(5 <= n <= 9 for n in whole)
    assert whole != Prompts.of_training(chatty(), l1_run(tmp_path)).lengths(0, range(12))


@pytest.mark.parametrize(
    ("budget", "rollout", "most"),
    [
        ({"thinking": 60, "solution": 40}, {}, 100),
        ({"thinking": 60, "solution": 400, "total": 90}, {}, 90),
        ({"thinking": "unlimited", "solution": "unlimited"}, {"max_new_tokens": 70}, 70),
    ],
)
@pytest.mark.parametrize("length", ["l1-exact", "l1-max"])
def test_a_length_beyond_what_a_row_may_sample_is_refused(tmp_path, length, budget, rollout, most):
    def config(target):
        reward = {"length": length, "target_min": 5, "target_max": target}
        return build_config(tmp_path, reward=reward, budget=budget, rollout=rollout)

    assert config(most).reward.target_max == most
    with pytest.raises(ValueError, match=rf"reward.target_max: .* at most the {most} tokens .* {most + 1}"):
        config(most + 1)


def test_target_max_says_nothing_without_a_length_reward(tmp_path):
    assert build_config(tmp_path, reward={"target_max": 10**6}).reward.length == "none"


def bos_adding():
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer


@pytest.mark.parametrize(("value", "bos"), [(True, 1), (False, 0), (None, 0)])
def test_raw_prompts_get_the_bos_that_the_configuration_asks_for(tmp_path, file, value, bos):
    data = {"source": file, "chat": "off"} | ({} if value is None else {"add_special_tokens": value})
    config = build_config(tmp_path / "run", data=data, train={"steps": 1})
    problems = [Problem(f"{n} + 1 = ? <think>", str(n), str(n)) for n in range(4)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = run(config, dataset=problems, tokenizer=bos_adding())
    said = [str(w.message) for w in caught if "the tokenizer puts in front" in str(w.message)]
    assert len(said) == (value is None)
    batch = trainer._collector.collect(0, 0).batch
    assert {prompt.count(BOS) for prompt in batch.prompts} == {bos}


def test_prompts_of_a_template_are_never_given_a_second_bos(tmp_path, file):
    config = build_config(tmp_path / "run", data={"source": file}, train={"steps": 1})
    prompts = Prompts.of_training(bos_adding(), config)
    ids = prompts.encode(prompts.render([QUESTION], [None]), len(IDS))
    assert ids[0].count(BOS) == 1
    config = build_config(tmp_path / "run", data={"source": file, "add_special_tokens": True})
    with pytest.raises(ValueError, match=r"data.add_special_tokens: true, but .* from the chat template"):
        Prompts.of_training(bos_adding(), config)
