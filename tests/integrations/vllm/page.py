"""The request values in docs/vllm.md: `python -m tests.integrations.vllm.page` writes them."""

import argparse

from elastic.integrations.request_values import VALUES
from tests.integrations.pages import DOCS

PAGE = DOCS / "vllm.md"
BEGIN, END = "<!-- request values -->", "<!-- end of request values -->"


def written(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{value.name}` | {value.meaning} |" for value in VALUES]
    return "\n".join([before + BEGIN, "| name | value |", "|---|---|", *rows, END + after])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(written(PAGE.read_text()))
