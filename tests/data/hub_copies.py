"""Small copies of hub sets, laid out as the hub's snapshots are, in the schemas that their cards list."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from elastic.data.sets import SETS

Row = dict[str, Any]
CASES = [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4\n"}]
STDIN = [case | {"testtype": "stdin_stdout"} for case in CASES]
CALLS = [{"input": "[1, 2]\n3", "output": "[3, 6]", "testtype": "functional"}]


def packed(tests: Sequence[Row]) -> str:
    """Private tests as LiveCodeBench publishes them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def lcb(name: str, date: str, *, public: Sequence[Row], private: str, metadata: Row, code: str = "") -> Row:
    return {
        "question_title": name,
        "question_content": f"Solve {name}.",
        "platform": "leetcode",
        "question_id": name,
        "contest_id": "c1",
        "contest_date": date,
        "starter_code": code,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps(metadata),
    }


def aime(year: int) -> Row:
    return {
        "ID": f"{year}-1",
        "Year": year,
        "Problem Number": 1,
        "Question": f"In {year}?",
        "Answer": "073",
        "Part": None,
    }


def prime(number: int, verification: Any) -> Row:
    return {
        "source": "apps",
        "task_type": "verifiable_code",
        "in_source_id": str(number),
        "prompt": f"Solve the following coding problem using the programming language python: {number}",
        "gold_standard_solution": "```python\npass\n```",
        "verification_info": verification,
        "metadata": "{'difficulty': 'easy'}",
        "problem_id": f"vcp_{number}",
    }


def olympiad(number: int, answer: list[str]) -> Row:
    return {
        "id": number,
        "question": f"Olympiad {number}?",
        "solution": ["So it is."],
        "final_answer": answer,
        "context": None,
        "modality": "Text-only",
        "difficulty": "Competition",
        "is_multiple_answer": "," in answer[0],
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
        "question_type": "Open-ended",
        "subfield": "Algebra",
        "subject": "Math",
        "language": "English",
    }


def humaneval(name: str) -> Row:
    return {
        "task_id": f"HumanEval/{name}",
        "prompt": f'def f{name}(a):\n    """The same."""\n',
        "canonical_solution": "    return a\n",
        "entry_point": f"f{name}",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }


_TACO = {"difficulty": "EASY", "solutions": ["pass"], "starter_code": "", "source": "codewars", "id": 0}
_CALLED = {"fn_name": "f", "inputs": [[1, [2]]], "outputs": [[3]]}
_FUNCTION = {"func_name": "solve"}
_DEEPCODER_TACO = {"problem": "T?", "solutions": ["pass"], "tests": json.dumps(_CALLED)}
_DEEPCODER_PRIME = {
    "problem": "P?",
    "solutions": ["pass"],
    "tests": json.dumps([{"fn_name": "f", "input": [1], "output": [2], "type": "function_call"}]),
}
_DEEPCODER_LCB = {
    "problem": "L?",
    "starter_code": "class Solution: ...",
    "tests": json.dumps(CALLS),
    "metadata": _FUNCTION,
}
_PYTHON = {"language": "python", "test_cases": [case | {"type": "stdin_stdout"} for case in CASES]}
_JAVA = {"language": "java", "test_cases": []}
_CALL_CASE = {"type": "function_call", "fn_name": "f", "input": [1], "output": [2]}

# hub id -> configuration ("" for the only one) -> split -> rows
COPIES: dict[str, dict[str, dict[str, list[Row]]]] = {
    "di-zhang-fdu/AIME_1983_2024": {"": {"train": [aime(1983), aime(2023), aime(2024)]}},
    "AI-MO/NuminaMath-CoT": {
        "": {
            "train": [
                {"source": source, "problem": f"{source}?", "solution": solution, "messages": []}
                for source, solution in (
                    ("amc_aime", r"First \boxed{1}, so $\boxed{\frac{3}{4}}$."),
                    ("olympiads", r"\boxed{2}"),
                    ("amc_aime", "By symmetry."),
                )
            ]
        }
    },
    "KbsdJames/Omni-MATH": {
        "": {
            "test": [
                {
                    "domain": ["Mathematics -> Algebra"],
                    "difficulty": 8.0,
                    "problem": "Omni?",
                    "solution": "So 5.",
                    "answer": "5",
                    "source": "imo",
                }
            ]
        }
    },
    "RUC-AIBOX/STILL-3-Preview-RL-Data": {
        "": {"train": [{"question": "Still?", "answer": "6", "messages": [{"role": "user", "content": "?"}]}]}
    },
    "agentica-org/DeepScaleR-Preview-Dataset": {
        "": {
            "train": [
                {"problem": "Deep?", "answer": "-\\frac{2}{3}", "solution": "Long."},
                {"problem": "Open?", "answer": "", "solution": ""},
            ]
        }
    },
    "likaixin/TACO-verified": {
        "": {
            "train": [
                _TACO
                | {"question": "Stdin?", "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})},
                _TACO | {"question": "Call?", "input_output": json.dumps(_CALLED)},
                _TACO | {"question": "None?", "input_output": ""},
            ]
        }
    },
    "PrimeIntellect/verifiable-coding-problems": {
        "": {
            "train": [
                prime(0, repr(_PYTHON)),
                prime(1, json.dumps(_JAVA)),
                prime(2, json.dumps({"language": "python", "test_cases": [_CALL_CASE]})),
            ]
        }
    },
    "agentica-org/DeepCoder-Preview-Dataset": {
        "primeintellect": {"train": [_DEEPCODER_PRIME]},
        "taco": {"train": [_DEEPCODER_TACO]},
        "lcbv5": {"train": [_DEEPCODER_LCB], "test": [_DEEPCODER_LCB]},
        "codeforces": {"test": [{"problem": "C?", "tests": json.dumps(CASES)}]},
    },
    "HuggingFaceH4/aime_2024": {
        "": {
            "train": [
                {
                    "id": 60,
                    "problem": "Aya?",
                    "solution": "...",
                    "answer": "204",
                    "url": "https://example.org",
                    "year": "2024",
                }
            ]
        }
    },
    "HuggingFaceH4/MATH-500": {
        "": {
            "test": [
                {
                    "problem": "Convert.",
                    "solution": "...",
                    "answer": "(3, 4)",
                    "subject": "Precalculus",
                    "level": 2,
                    "unique_id": "test/precalculus/807.json",
                }
            ]
        }
    },
    "AI-MO/aimo-validation-amc": {
        "": {"train": [{"id": 0, "problem": "Amc?", "answer": 142.0, "url": "https://example.org"}]}
    },
    "Hothan/OlympiadBench": {
        "OE_TO_maths_en_COMP": {"train": [olympiad(1606, ["2"]), olympiad(1610, ["$-1,7$"])]},
        "TP_TO_maths_en_COMP": {"train": [olympiad(1, ["none"])]},
    },
    "math-ai/minervamath": {"": {"test": [{"question": "How hot?", "answer": "1.6"}]}},
    "openai/gsm8k": {
        "main": {
            "train": [{"question": "Clips?", "answer": "48/2 = <<48/2=24>>24\n#### 72"}],
            "test": [{"question": "Eggs?", "answer": "9 * 2 = $<<9*2=18>>18\n#### 18"}],
        },
        "socratic": {"train": [{"question": "No?", "answer": "#### 0"}]},
    },
    "lighteval/code_generation_lite": {
        "release_v5": {
            "test": [
                lcb("old", "2023-05-01T00:00:00", public=CASES, private=json.dumps(STDIN), metadata={}),
                lcb(
                    "new",
                    "2024-08-01T00:00:00",
                    public=CALLS,
                    private=packed(CALLS),
                    metadata=_FUNCTION,
                    code="class Solution: ...",
                ),
                lcb("late", "2025-02-01T00:00:00", public=STDIN, private=packed(STDIN), metadata={}),
            ]
        },
        "release_v1": {"test": [lcb("v1", "2024-08-01", public=STDIN, private="[]", metadata={})]},
    },
    "evalplus/humanevalplus": {"": {"test": [humaneval("0"), humaneval("1")]}},
}


def write_copy(hub: str, directory: Path) -> Path:
    """A snapshot of a set: its card, and a parquet file of each split."""
    home = directory / hub.replace("/", "--")
    card = ["---", "configs:"]
    for config, splits in COPIES[hub].items():
        card += [f"- config_name: {config or 'default'}", "  data_files:"]
        for split, rows in splits.items():
            name = f"{config or 'data'}/{split}-00000-of-00001.parquet"
            card += [f"  - split: {split}", f"    path: {name}"]
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(rows), home / name)
    (home / "README.md").write_text("\n".join([*card, "---", ""]))
    return home


def use_copies(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Lets the named sets read small copies, through `datasets` as always, without a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", directory / "cache")
    for name, known in SETS.items():
        home = directory / known.hub.replace("/", "--")
        if not home.exists():
            write_copy(known.hub, directory)
        monkeypatch.setitem(SETS, name, replace(known, hub=str(home)))
