"""Headless Chromium over its DevTools protocol, through a pipe: no driver and no package besides."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0  # seconds for one answer, on a machine that is busy
# A page that asks for nothing is only seen as such in a browser that asks for nothing of its own.
FLAGS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-sync", "--hide-scrollbars"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
KEYS = {
    **{f"Arrow{name}": 37 + at for at, name in enumerate(("Left", "Up", "Right", "Down"))},
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
}
TYPED = {"Enter": "\r", " ": " "}  # keys that also type something, as buttons need


def find() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One running Chromium.

    Args:
        program: its path.
        profile: an empty folder.
    """

    def __init__(self, program: str, profile: Path) -> None:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        (inward, self._out), (self._in, outward) = _pipe(), _pipe()
        command = [program, *FLAGS, *root, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            # Chromium reads commands from descriptor 3 and answers on 4.
            ["bash", "-c", f'exec "$@" 3<&{inward} 4>&{outward}', "chromium", *command],
            pass_fds=(inward, outward),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inward)
        os.close(outward)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """Sends a command and returns its result; what the browser says meanwhile is kept in `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait_for(self, event: str, session: str, **facts: object) -> None:
        """Returns once an event of that name with those facts has come, also if it came before."""
        about = {"method": event, "sessionId": session}.items()

        def is_it(found: dict[str, Any]) -> bool:
            return about <= found.items() and facts.items() <= found["params"].items()

        if not any(map(is_it, self.events)):
            while not is_it(found := self._receive()):
                self.events.append(found)
            self.events.append(found)

    def close(self) -> None:
        """Ends the browser."""
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("Chromium ended" if ready else f"Chromium said nothing for {PATIENCE} s")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are clear of those that the browser's are moved to."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


class Tab:
    """A page in a browser, driven as a person would: by keys and clicks.

    Args:
        browser: in which it opens.
        width: of the window, in CSS pixels.
        height: likewise.
        media: values of CSS media features, such as `prefers-color-scheme`.
    """

    def __init__(self, browser: Browser, width: int = 1280, height: int = 900, **media: str) -> None:
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        self.media(**media)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """A command of the protocol for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def media(self, kind: str = "", **features: str) -> None:
        """Emulates a medium (`print`) and media features; underscores of names stand for hyphens."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=listed)

    def open(self, path: Path) -> None:
        """Opens a file and waits until it has drawn itself."""
        loader = self.call("Page.navigate", url=path.as_uri())["loaderId"]
        self._browser.wait_for("Page.lifecycleEvent", self._session, name="load", loaderId=loader)
        self.settle()

    def settle(self) -> None:
        """Waits for two frames: observers have run then."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        """The shown text of the first element that matches."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        """The shown text of all elements that match and are shown."""
        visible = "filter((e) => e.checkVisibility()).map((e) => e.innerText)"
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].{visible}")

    def press(self, key: str, *, shift: bool = False) -> None:
        """Presses and lets go of a key."""
        code = KEYS.get(key) or ord(key.upper())
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        typed = TYPED.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", text=typed, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        script = "e.scrollIntoView({block: 'center', behavior: 'instant'}), e.getBoundingClientRect()"
        find = f"(() => {{ const e = document.querySelector({json.dumps(selector)}); const b = ({script});"
        return tuple(self.run(f"{find} return [b.x + b.width / 2, b.y + b.height / 2]; }})()"))

    def move(self, x: float, y: float) -> None:
        """Moves the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Clicks on the middle of the first element that matches."""
        x, y = self.place(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def focus(self, selector: str, most: int = 200) -> None:
        """Presses Tab until an element that matches has the focus."""
        for _ in range(most):
            if self.run(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            self.press("Tab")
        raise AssertionError(f"Tab never reaches {selector}")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes a PNG of the window or of the whole page."""
        result = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(result["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def complaints(self) -> list[str]:
        """Errors and warnings that the page made: exceptions, the console, the log."""
        found = []
        for event in self._own():
            method, facts = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(str(facts["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning"):
                found.append(str(facts["args"]))
            elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
                found.append(facts["entry"]["text"])
            elif method == "Page.javascriptDialogOpening":
                found.append(f"a dialog: {facts['message']}")
        return found

    def requests(self) -> list[str]:
        """The addresses that the tab asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self._own()
            if event["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """Closes the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _own(self) -> list[dict[str, Any]]:
        self.run("1")  # what the page has said so far has arrived with this answer
        return [event for event in self._browser.events if event.get("sessionId") == self._session]
