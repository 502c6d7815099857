"""What a report shows."""

import json
import re
from pathlib import Path
from typing import Any


def payload_of(page: Path) -> dict[str, Any]:
    """The payload of a written report."""
    pattern = r'<script type="application/json" id="payload">(.*?)</script>'
    (text,) = re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(text)
