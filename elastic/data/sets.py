"""The data sets of the paper (arXiv 2505.05315) by name: where they are, and what their columns mean.

Ids, configurations, splits and columns were looked up in the sets' cards, in the scripts that prepared the
paper's data (rllm, which DeepScaleR and DeepCoder come from), in lm-evaluation-harness and in lighteval.
``note`` says what could not be confirmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from elastic.data.columns import Columns

# LiveCodeBench by date of contest: DeepCoder trained on what is before August 2024, and tested behind it.
_LCB_TRAIN = {"contest_date": ("2023-05-01", "2024-07-31T23:59:59")}
_LCB_TEST = {"contest_date": ("2024-08-01", "2025-01-31T23:59:59")}


@dataclass(frozen=True)
class Part:
    """One split of a set.

    Attributes:
        split: the split's name on the hub.
        configs: the configurations that make it up; empty for a set that has only one.
        within: (lowest, highest) value at some paths of a row; other rows are no part of it.
    """

    split: str
    configs: tuple[str, ...] = ()
    within: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A set on the Hugging Face hub.

    Attributes:
        hub: its id there.
        kind: what answers are graded by.
        parts: splits by the names that `elastic.data.load` knows; the first is the default.
        columns: where its rows have what a problem is made of; problems without ``id`` are numbered.
        licence: as its card says; what the problems themselves are under may differ.
        origin: where the problems are from.
        note: what to know, and what could not be confirmed.
        incomplete: whether it may have rows without an answer or tests; they are left out, and said.
    """

    hub: str
    kind: Literal["math", "code"]
    parts: Mapping[str, Part]
    columns: Columns
    licence: str
    origin: str
    note: str = ""
    incomplete: bool = False


TRAINING: dict[str, DataSet] = {
    "aime-1983-2023": DataSet(
        hub="di-zhang-fdu/AIME_1983_2024",
        kind="math",
        parts={"train": Part("train", within={"Year": (1983, 2023)})},
        columns={"prompt": "Question", "answer": "Answer", "id": "ID"},
        licence="MIT",
        origin="Art of Problem Solving's wiki",
        note="Its card asks not to train on it, and lists no columns. Problems of 2024 are left out.",
    ),
    "amc-train": DataSet(
        hub="AI-MO/NuminaMath-CoT",
        kind="math",
        parts={"train": Part("train", within={"source": ("amc_aime", "amc_aime")})},
        columns={"prompt": "problem", "solution": "solution"},
        licence="Apache-2.0",
        origin="NuminaMath's source amc_aime",
        note="AIME problems are among it; DeepScaleR removed those near its AIME set.",
        incomplete=True,
    ),
    "omni-math": DataSet(
        hub="KbsdJames/Omni-MATH",
        kind="math",
        parts={"train": Part("test")},
        columns={"prompt": "problem", "answer": "answer"},
        licence="Apache-2.0",
        origin="arXiv 2410.07985",
        note="Published as a test split. Some problems ask for proofs.",
        incomplete=True,
    ),
    "still-3": DataSet(
        hub="RUC-AIBOX/STILL-3-Preview-RL-Data",
        kind="math",
        parts={"train": Part("train")},
        columns={"prompt": "question", "answer": "answer"},
        licence="not stated",
        origin="arXiv 2412.09413",
        note="29,925 problems when DeepScaleR took them.",
        incomplete=True,
    ),
    "deepscaler": DataSet(
        hub="agentica-org/DeepScaleR-Preview-Dataset",
        kind="math",
        parts={"train": Part("train")},
        columns={"prompt": "problem", "answer": "answer"},
        licence="MIT",
        origin="AIME 1984-2023, AMC before 2023, Omni-MATH and STILL, joined",
        note="What the paper trained its math model on; 40.3 thousand problems, some without an answer.",
        incomplete=True,
    ),
    "taco": DataSet(
        hub="likaixin/TACO-verified",
        kind="code",
        parts={"train": Part("train")},
        columns={"prompt": "question", "tests": "input_output"},
        licence="MIT",
        origin="BAAI/TACO (arXiv 2312.14852), with solutions that pass",
        note="Columns as DeepCoder's script reads them.",
        incomplete=True,
    ),
    "synthetic-1": DataSet(
        hub="PrimeIntellect/verifiable-coding-problems",
        kind="code",
        parts={"train": Part("train", within={"verification_info.language": ("python", "python")})},
        columns={"prompt": "prompt", "tests": "verification_info"},
        licence="not stated",
        origin="SYNTHETIC-1's tasks with tests, those for Python",
        note="Tests are Python or JSON text.",
        incomplete=True,
    ),
    "deepcoder": DataSet(
        hub="agentica-org/DeepCoder-Preview-Dataset",
        kind="code",
        parts={
            "train": Part("train", configs=("primeintellect", "taco", "lcbv5")),
            "test": Part("test", configs=("codeforces", "lcbv5")),
        },
        columns={"prompt": "problem", "tests": "tests"},
        licence="MIT",
        origin="SYNTHETIC-1, TACO and LiveCodeBench v5, joined",
        note="What the paper trained its code model on. Columns as rllm's script reads them.",
        incomplete=True,
    ),
}

EVALUATION: dict[str, DataSet] = {
    "aime-2024": DataSet(
        hub="HuggingFaceH4/aime_2024",
        kind="math",
        parts={"test": Part("train")},
        columns={"prompt": "problem", "answer": "answer", "id": "id"},
        licence="not stated",
        origin="AIME I and II of 2024, from AI-MO/aimo-validation-aime",
        note="30 problems.",
    ),
    "math500": DataSet(
        hub="HuggingFaceH4/MATH-500",
        kind="math",
        parts={"test": Part("test")},
        columns={"prompt": "problem", "answer": "answer", "id": "unique_id"},
        licence="not stated",
        origin="MATH (arXiv 2103.03874), the subset of arXiv 2305.20050",
        note="500 problems.",
    ),
    "amc": DataSet(
        hub="AI-MO/aimo-validation-amc",
        kind="math",
        parts={"test": Part("train")},
        columns={"prompt": "problem", "answer": "answer", "id": "id"},
        licence="Apache-2.0",
        origin="AMC 12 of 2022 and 2023",
        note="83 problems; answers are floats. Licence as of its AIME sibling.",
    ),
    "olympiadbench": DataSet(
        hub="Hothan/OlympiadBench",
        kind="math",
        parts={"test": Part("train", configs=("OE_TO_maths_en_COMP",))},
        columns={"prompt": "question", "answer": "final_answer", "id": "id"},
        licence="Apache-2.0",
        origin="arXiv 2402.14008",
        note="Open-ended problems in English without pictures, 674; several answers are one text.",
    ),
    "minerva": DataSet(
        hub="math-ai/minervamath",
        kind="math",
        parts={"test": Part("test")},
        columns={"prompt": "question", "answer": "answer"},
        licence="not stated",
        origin="MIT OpenCourseWare, from arXiv 2206.14858",
        note="272 problems. Its card lists no columns; these are what other scripts read.",
    ),
    "gsm8k": DataSet(
        hub="openai/gsm8k",
        kind="math",
        parts={"test": Part("test", configs=("main",)), "train": Part("train", configs=("main",))},
        columns={"prompt": "question", "answer": "answer"},
        licence="MIT",
        origin="arXiv 2110.14168",
        note="1319 problems, 7473 for training.",
    ),
    "livecodebench": DataSet(
        hub="lighteval/code_generation_lite",
        kind="code",
        parts={
            "test": Part("test", configs=("release_v5",), within=_LCB_TEST),
            "train": Part("test", configs=("release_v5",), within=_LCB_TRAIN),
        },
        columns={
            "prompt": "question_content",
            "tests": ("public_test_cases", "private_test_cases"),
            "starter_code": "starter_code",
            "id": "question_id",
        },
        licence="CC",
        origin="arXiv 2403.07974; contests from August 2024 to January 2025, 279 problems",
        note="A copy of livecodebench/code_generation_lite, whose script `datasets` no longer runs.",
    ),
    "codeforces": DataSet(
        hub="agentica-org/DeepCoder-Preview-Dataset",
        kind="code",
        parts={"test": Part("test", configs=("codeforces",))},
        columns={"prompt": "problem", "tests": "tests"},
        licence="MIT",
        origin="Qwen/CodeElo, 408 problems",
        note="Its tests are the statements' examples; ratings need Codeforces' own judge.",
        incomplete=True,
    ),
    "humaneval-plus": DataSet(
        hub="evalplus/humanevalplus",
        kind="code",
        parts={"test": Part("test")},
        columns={"prompt": "prompt", "program": "test", "function": "entry_point", "id": "task_id"},
        licence="Apache-2.0",
        origin="arXiv 2305.01210",
        note="164 problems. rllm leaves out one whose test its own solution fails.",
    ),
}

SETS = TRAINING | EVALUATION
