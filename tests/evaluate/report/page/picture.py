"""README's picture of a report.

python -m tests.evaluate.report.page.picture demo-out/report.html docs/report.png
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.evaluate.report.page.browser import Browser, Tab, find

SHOWN = ("accuracy", "traces")  # parts; all would be several screens
COLOURS = 128


def take(page: Path, out: Path) -> None:
    """Writes a PNG of the head of a report and of some of its parts."""
    program = find()
    if program is None:
        raise SystemExit("no Chromium (apt install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(program, Path(folder, "profile"))
        tab = Tab(browser, width=1200, prefers_color_scheme="light")
        tab.open(page.resolve())
        kept = ", ".join(f"#{name}" for name in SHOWN)
        tab.run(
            f"document.querySelectorAll('section:not({kept}), nav, .skip').forEach((node) => node.remove())"
        )
        tab.settle()
        tab.screenshot(Path(folder, "whole.png"), whole=True)
        browser.close()
        picture = Image.open(io.BytesIO(Path(folder, "whole.png").read_bytes()))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
