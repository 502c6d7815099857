"""The one record type every data source yields."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One task for the model.

    Attributes:
        prompt: the text that is tokenised as it stands, template and start marker included.
        answer: what the reward compares the solution's answer with.
        id: a name that is unique within its data source; empty where the source has none.
    """

    prompt: str
    answer: str
    id: str = ""
