"""The one record type every data source yields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One task for the model.

    Attributes:
        prompt: the text that is tokenised as it stands, template and start marker included.
        answer: the right answer.
        id: a name that is unique within its data source; empty where the source has none.
        source: the data source, as its name or file is called; empty where nobody said.
        tests: of a programming task, what a program is graded by; then ``answer`` is empty.
        columns: further columns of its row that were asked for, by name: values as JSON has them.
    """

    prompt: str
    answer: str
    id: str = ""
    source: str = ""
    tests: tuple[Any, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def reference(self) -> Any:
        """What a reward compares a solution with: the tests if there are some, else the answer."""
        return self.tests or self.answer
