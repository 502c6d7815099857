"""Answers of several methods to the same problems, as the report's payload has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elastic.data import Problem
from elastic.evaluate.reasoning import Reasoning, mean_or_none, reasoning
from elastic.evaluate.report.payload.choice import Arm, Choice, ProblemKey, Verdicts, choose
from elastic.evaluate.report.payload.places import Place, Places
from elastic.evaluate.report.payload.run import Answer, ReportRun
from elastic.evaluate.report.payload.series import label_of
from elastic.evaluate.report.payload.texts import MOST_CHARACTERS, Cuts, fit, shortened, size_of
from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.problems import mean

Record = dict[str, Any]
_PROMPT = 2_000  # characters
_CUT = "{} of more than {} characters are shown without their middle."
_FACTS = ("tokens", "thinking_tokens", "solution_tokens", "cut", "finish_reason")
_MEANS = ("rechecks", "repetition", "solution_share", "steps_in_solution")
EMPTY: Record = {"arms": [], "budgets": [], "problems": []}


@dataclass(frozen=True)
class Seen:
    """An answer whose text was kept, without it.

    Attributes:
        answer: its sample has no segments.
        measures: of the text.
    """

    answer: Answer
    measures: Reasoning


def look_through(run: ReportRun) -> tuple[list[Answer], list[Seen]]:
    """All answers of a run without their texts, and the measures of those that have one."""
    answers, seen = [], []
    for answer in run.answers():
        bare = answer._replace(sample=replace(answer.sample, segments=()))
        answers.append(bare)
        if answer.sample.segments:
            seen.append(Seen(bare, reasoning(answer.sample)))
    return answers, seen


class Traces:
    """The answers with texts of several runs.

    Args:
        runs: with unique names.
        seen: of each run, by its name.
        places: of all answers.
    """

    def __init__(self, runs: Sequence[ReportRun], seen: Mapping[str, Sequence[Seen]], places: Places) -> None:
        self._runs, self._seen, self._places = runs, seen, places
        self._known: dict[tuple[str, str], Problem] = {}
        for run in reversed(runs):
            self._known |= run.problems
        self._arms = {
            Arm(run.name, item.answer.sample.method): self._label(run, item.answer.sample.method)
            for run in runs
            for item in seen[run.name]
        }

    def reasoning(self) -> list[Record]:
        """Means over the answers of an arm to a set at a budget or step; null for what no answer has."""
        groups: dict[tuple[str, Arm, Place], list[Seen]] = {}
        for run in self._runs:
            for item in self._seen[run.name]:
                sample = item.answer.sample
                data = sample.data if item.answer.step is None else ""  # of a training, the step says it
                key = data, Arm(run.name, sample.method), self._places.of_step(item.answer)
                groups.setdefault(key, []).append(item)
        sets, arms = list(dict.fromkeys(data for data, _, _ in groups)), list(self._arms)
        ordered = sorted(groups, key=lambda key: (sets.index(key[0]), arms.index(key[1]), key[2]))
        return [
            {"data": data, "arm": self._arms[arm], "budget": place.label} | _means(groups[data, arm, place])
            for data, arm, place in ordered
        ]

    def shown(self, most_problems: int, room: int) -> tuple[Record, list[str]]:
        """The traces that a page has room for, and what is to be said of those that it has not.

        Args:
            most_problems: at least 1.
            room: for everything, in bytes.
        """
        found = self._verdicts()
        if not found:
            return EMPTY, []
        tokens = mean([item.answer.sample.tokens for items in self._seen.values() for item in items])
        choice = choose(found, most_problems, room, tokens)
        problems = self._with_texts(choice)
        traces = {
            "arms": [{"id": _arm_id(arm), "label": label} for arm, label in self._arms.items()],
            "budgets": [{"id": place.label, "label": place.label} for place in choice.places],
            "problems": problems,
        }
        texts = [_segments(problem) for problem in problems]
        of_texts = sum(size_of(text) for found in texts for _, text in found)
        return traces, self._notes(choice, found, fit(texts, room - size_of(traces) + of_texts))

    def _verdicts(self) -> dict[ProblemKey, Verdicts]:
        found: dict[ProblemKey, Verdicts] = {}
        for run in self._runs:
            for item in self._seen[run.name]:
                arm, place, key = self._place(run, item.answer)
                found.setdefault(key, {}).setdefault(place, {}).setdefault(arm, item.answer.sample.correct)
        return found

    def _with_texts(self, choice: Choice) -> list[Record]:
        """The chosen problems with the first answer of every arm at every chosen place."""
        records: dict[ProblemKey, Record] = {
            key: {
                "id": key.id,
                "data": key.data,
                "prompt": shortened(key.prompt, _PROMPT),
                "answer": shortened(self._right_answer(key), _PROMPT),
                "answers": {},
            }
            for key in choice.problems
        }
        places = set(choice.places)
        for run in self._runs:
            for answer in run.answers():
                arm, place, key = self._place(run, answer)
                if not answer.sample.segments or place not in places or key not in records:
                    continue
                of_arm = records[key]["answers"].setdefault(_arm_id(arm), {})
                if place.label not in of_arm:
                    of_arm[place.label] = _answer(answer.sample)
        return list(records.values())

    def _notes(self, choice: Choice, verdicts: Mapping[ProblemKey, Verdicts], cuts: Cuts) -> list[str]:
        notes = []
        if len(choice.problems) < len(verdicts):
            notes.append(
                f"The traces show {len(choice.problems)} of {len(verdicts)} problems, "
                "first those on which methods differ at some budget."
            )
        known = {place for places in verdicts.values() for place in places}
        if len(choice.places) < len(known):
            shown = ", ".join(place.label for place in choice.places)
            notes.append(f"They show {len(choice.places)} of {len(known)} budgets: {shown}.")
        if any(item.answer.sample.sample for items in self._seen.values() for item in items):
            notes.append("Of several answers to a problem they show the first.")
        if cuts.readable is not None:
            notes.append(_CUT.format("Texts", cuts.readable))
        if cuts.others is not None:
            notes.append(_CUT.format(f"From problem {cuts.first + 1} on texts", cuts.others))
        if not all(key.prompt for key in choice.problems):
            notes.append("Some prompts are not known: their runs did not keep them.")
        return notes

    def _place(self, run: ReportRun, answer: Answer) -> tuple[Arm, Place, ProblemKey]:
        sample = answer.sample
        name = sample.data, sample.problem
        known = run.problems.get(name) or self._known.get(name)
        key = ProblemKey(sample.data, sample.problem, known.prompt if known else "")
        return Arm(run.name, sample.method), self._places.of(answer), key

    def _right_answer(self, key: ProblemKey) -> str:
        for run in self._runs:
            problem = run.problems.get((key.data, key.id))
            if problem is not None and problem.prompt == key.prompt:
                return problem.answer
        return ""

    def _label(self, run: ReportRun, method: str) -> str:
        label = label_of(method, run.labels)
        several = sum(bool(seen) for seen in self._seen.values()) > 1
        return f"{label} ({run.name})" if several and label != run.name else label


def _means(seen: Sequence[Seen]) -> Record:
    samples = [item.answer.sample for item in seen]
    return {
        "count": len(seen),
        "thinking_tokens": _mean([sample.thinking_tokens for sample in samples]),
        "solution_tokens": _mean([sample.solution_tokens for sample in samples]),
        **{name: _mean([getattr(item.measures, name) for item in seen]) for name in _MEANS},
    }


def _answer(sample: Sample) -> Record:
    facts = {name: getattr(sample, name) for name in _FACTS}
    segments = [[kind, shortened(text, MOST_CHARACTERS)] for kind, text in sample.segments]
    correct = None if sample.correct is None else int(sample.correct)
    return {"correct": correct, "segments": segments, **facts, "measures": reasoning(sample).to_dict()}


def _segments(problem: Record) -> list[list[str]]:
    answers = (answer for of_arm in problem["answers"].values() for answer in of_arm.values())
    return [part for answer in answers for part in answer["segments"]]


def _arm_id(arm: Arm) -> str:
    return f"{arm.run}/{arm.method}"


def _mean(values: Sequence[float | None]) -> float | None:
    found = mean_or_none(values)
    return None if found is None else round(found, 3)
